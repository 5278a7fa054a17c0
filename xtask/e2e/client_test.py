"""python-socketio against the real binary, on one and on three processes.

Reads STARLING_BIN from the environment. Every node listens on free loopback ports.
"""

import contextlib
import json
import os
import pathlib
import secrets
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest
import urllib.error
import urllib.request

import requests
import socketio

ANSWER_SECONDS = 8
READY_SECONDS = 20


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago, for TCP and for UDP."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def fetch_json(url: str):
    """The answer of a probe or of the admin API; None while nobody answers with 200."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return json.load(answer)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return None


class Cluster:
    """Real processes that find each other by seeds."""

    def __init__(self, size: int, environment: dict[str, str] | None = None):
        self.folder = tempfile.TemporaryDirectory()
        root = pathlib.Path(self.folder.name)
        key = root / "cluster.key"
        key.write_text(secrets.token_hex(32))
        ports = free_ports(3 * size)
        nodes = [ports[3 * n : 3 * n + 3] for n in range(size)]
        self.urls = [f"http://127.0.0.1:{client}" for client, _, _ in nodes]
        admins = [f"http://127.0.0.1:{admin}" for _, admin, _ in nodes]
        self.processes = []
        for n, (client, admin, mesh) in enumerate(nodes):
            flags = ["--node", f"gw-{n}", "--data-dir", str(root / f"gw-{n}")]
            flags += ["--listen", f"127.0.0.1:{client}", "--admin-listen", f"127.0.0.1:{admin}"]
            flags += ["--mesh-listen", f"127.0.0.1:{mesh}"]
            if size > 1:
                flags += ["--cluster-key-file", str(key)]
                flags += [word for other in nodes if other[2] != mesh for word in ("--seed", f"127.0.0.1:{other[2]}")]
            command = [os.environ["STARLING_BIN"], "serve", *flags]
            with open(root / f"gw-{n}.log", "wb") as log:
                settings = {**os.environ, **(environment or {})}
                self.processes.append(subprocess.Popen(command, stdout=log, stderr=log, env=settings))
        try:
            for admin in admins:
                wait(lambda: fetch_json(f"{admin}/readyz"), READY_SECONDS, f"{admin} to be ready")
                wait(lambda: self.alive(admin) == size, READY_SECONDS, f"{admin} to see {size} members")
        except Exception:
            self.stop()
            raise

    @staticmethod
    def alive(admin: str) -> int:
        report = fetch_json(f"{admin}/api/cluster") or {"members": []}
        return sum(member["state"] == "alive" for member in report["members"])

    def stop(self) -> list[int]:
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        codes = []
        for process in self.processes:
            try:
                codes.append(process.wait(15))
            except subprocess.TimeoutExpired:
                process.kill()
                codes.append(process.wait())
        self.folder.cleanup()
        return codes


def wait(holds, seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds} s for {what}")
        time.sleep(0.02)


class ClientCases:
    """The cases; run by the two classes below with their own number of processes."""

    size: int

    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(cls.size)

    @classmethod
    def tearDownClass(cls):
        codes = cls.cluster.stop()
        assert codes == [0] * cls.size, f"exit codes at the stop: {codes}"

    def connect(self, node: int = 0, transports=None, namespace: str = "/", serializer: str = "default"):
        client = socketio.Client(reconnection=False, serializer=serializer)
        url = self.cluster.urls[node]
        client.connect(url, transports=transports, namespaces=[namespace], wait_timeout=ANSWER_SECONDS)
        self.addCleanup(client.disconnect)
        return client

    def ask(self, client, event: str, argument, namespace: str = "/"):
        return client.call(event, argument, namespace=namespace, timeout=ANSWER_SECONDS)

    def done(self, client, event: str, argument, namespace: str = "/"):
        answer = self.ask(client, event, argument, namespace)
        self.assertTrue(answer["ok"], answer)
        return answer

    def room(self) -> str:
        return f"{self.id().rsplit('.', 1)[-1]}-{secrets.token_hex(4)}"

    def received(self, client, event: str, namespace: str = "/") -> list:
        messages = []
        client.on(event, lambda *args: messages.append(list(args)), namespace=namespace)
        return messages

    def gets(self, messages: list, count: int) -> None:
        wait(lambda: len(messages) >= count, ANSWER_SECONDS, f"{count} messages, got {len(messages)}")
        self.assertEqual(len(messages), count)

    def test_each_transport_sends_and_receives(self):
        for transports, expected in ((None, "websocket"), (["websocket"], "websocket"), (["polling"], "polling")):
            with self.subTest(transports=transports):
                room = self.room()
                member, sender = self.connect(-1, transports), self.connect(0, transports)
                self.assertEqual(member.transport(), expected)
                messages = self.received(member, "m")
                self.done(member, "room:join", {"room": room})
                for n in range(20):
                    self.done(sender, "room:publish", {"room": room, "event": "m", "args": [n, "zwölf"]})
                self.gets(messages, 20)
                self.assertEqual(messages, [[n, "zwölf"] for n in range(20)])

    def test_bytes_arrive_as_bytes(self):
        room = self.room()
        member, sender = self.connect(-1), self.connect(0)
        messages = self.received(member, "file")
        self.done(member, "room:join", {"room": room})
        first, second = bytes([0, 1, 254, 255]), b"\x07" * 5000
        self.done(sender, "room:publish", {"room": room, "event": "file", "args": ["name", first, {"more": second}]})
        self.gets(messages, 1)
        self.assertEqual(messages[0], ["name", first, {"more": second}])

    def test_msgpack_and_json_share_a_room(self):
        room = self.room()
        kinds = [(transport, serializer) for transport in ("websocket", "polling") for serializer in ("msgpack", "default")]
        clients = [self.connect(n % self.size, [kind[0]], serializer=kind[1]) for n, kind in enumerate(kinds)]
        lists = [self.received(client, "m") for client in clients]
        for client in clients:
            self.done(client, "room:join", {"room": room})
        values = [None, True, -1, 2**53 - 1, -(2**63), 1.5, 1e300, "é ✓", b"\x00\xff", {"deep": [{"x": b""}, []]}]
        for n, client in enumerate(clients):
            self.done(client, "room:publish", {"room": room, "event": "m", "args": [n, *values], "echo": True})
        expected = [[n, *values] for n in range(len(clients))]
        for client, messages in zip(clients, lists):
            self.gets(messages, len(clients))
            self.assertEqual(messages, expected)
            history = self.done(client, "room:history", {"room": room})
            self.assertEqual([item["args"] for item in history["items"]], expected)

    def test_a_late_joiner_gets_exactly_the_last_messages(self):
        room = self.room()
        sender = self.connect(0)
        answers = [self.done(sender, "room:publish", {"room": room, "event": "m", "args": [n]}) for n in range(12)]
        joined = self.done(self.connect(-1), "room:join", {"room": room, "history": {"last": 5}})
        self.assertEqual([item["args"] for item in joined["history"]], [[n] for n in range(7, 12)])
        self.assertEqual([item["offset"] for item in joined["history"]], [answer["offset"] for answer in answers[7:]])
        self.assertEqual(joined["epoch"], answers[-1]["epoch"])

    def test_a_namespace_is_a_world_of_its_own(self):
        room = self.room()
        chat, sender = self.connect(-1, namespace="/chat"), self.connect(0, namespace="/chat")
        plain = self.connect(-1)
        in_chat, in_plain = self.received(chat, "m", "/chat"), self.received(plain, "m")
        self.done(chat, "room:join", {"room": room}, "/chat")
        self.done(plain, "room:join", {"room": room})
        self.done(sender, "room:publish", {"room": room, "event": "m", "args": ["chat"]}, "/chat")
        self.gets(in_chat, 1)
        self.assertEqual(in_plain, [])

    def test_members_see_who_comes_and_goes_whatever_their_parser(self):
        for serializer in ("default", "msgpack"):
            with self.subTest(serializer=serializer):
                room = self.room()
                first, second = self.connect(0, serializer=serializer), self.connect(-1)
                joined, left = self.received(first, "room:joined"), self.received(first, "room:left")
                ids = [first.get_sid(), second.get_sid()]
                own = self.done(first, "room:join", {"room": room, "presence": True})
                self.assertEqual(own["members"], [{"id": ids[0]}])
                both = self.done(second, "room:join", {"room": room, "presence": True})
                self.assertEqual(sorted(member["id"] for member in both["members"]), sorted(ids))
                self.gets(joined, 1)
                self.assertEqual(joined, [[{"room": room, "member": {"id": ids[1]}}]])
                asked = self.done(self.connect(-1), "room:presence", {"room": room})
                self.assertEqual((sorted(m["id"] for m in asked["members"]), asked["partial"]), (sorted(ids), False))
                second.disconnect()
                self.gets(left, 1)
                self.assertEqual(left, [[{"room": room, "member": {"id": ids[1]}}]])

    def test_rooms_of_others_are_forbidden(self):
        client, other = self.connect(0), self.connect(-1)
        for room in ("user:ann", other.get_sid()):
            for event in ("room:join", "room:history", "room:presence", "room:publish"):
                with self.subTest(event=event, room=room):
                    answer = self.ask(client, event, {"room": room, "event": "m", "args": []})
                    self.assertEqual((answer["ok"], answer["code"]), (False, "forbidden"))
                    self.assertIsInstance(answer["message"], str)

    def test_concurrent_publishers_make_one_order(self):
        room = self.room()
        members = [self.connect(n % self.size) for n in range(3)]
        lists = [self.received(member, "m") for member in members]
        for member in members:
            self.done(member, "room:join", {"room": room})
        publishers = [self.connect(n % self.size) for n in range(3)]

        def publish(who: int):
            for n in range(70):
                self.done(publishers[who], "room:publish", {"room": room, "event": "m", "args": [who, n]})

        threads = [threading.Thread(target=publish, args=(who,)) for who in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for messages in lists:
            self.gets(messages, 210)
            self.assertEqual(messages, lists[0])
        for who in range(3):
            self.assertEqual([n for sender, n in lists[0] if sender == who], list(range(70)))

    def test_what_is_not_a_request_is_refused(self):
        client = self.connect(0)
        for bad in (None, 1, "room", [], {}, {"room": ""}, {"room": "a\u0001"}, {"room": "x" * 257}):
            with self.subTest(bad=bad):
                answer = self.ask(client, "room:join", bad)
                self.assertEqual((answer["ok"], answer["code"]), (False, "bad_request"))
        self.assertEqual(self.ask(client, "no such event", {})["code"], "unhandled_event")


class OneProcess(ClientCases, unittest.TestCase):
    size = 1


class ThreeProcesses(ClientCases, unittest.TestCase):
    size = 3


class ThreeProcessesAndNoAffinity(ClientCases, unittest.TestCase):
    """Every request of a session reaches another node than the one before."""

    size = 3

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        script = pathlib.Path(__file__).with_name("scatter.mjs")
        cls.proxy = subprocess.Popen(["node", str(script), *cls.cluster.urls], stdout=subprocess.PIPE, text=True)
        cls.cluster.urls = [cls.proxy.stdout.readline().strip()] * cls.size

    @classmethod
    def tearDownClass(cls):
        cls.proxy.terminate()
        refusals, _ = cls.proxy.communicate(timeout=ANSWER_SECONDS)
        super().tearDownClass()
        if refusals:
            raise AssertionError(f"requests were refused:\n{refusals}")


class ThroughTls(unittest.TestCase):
    """TLS on the client port, with a certificate that the client checks."""

    def test_both_transports_carry_rooms(self):
        with tempfile.TemporaryDirectory() as folder:
            cert, key = (str(pathlib.Path(folder) / name) for name in ("cert.pem", "key.pem"))
            make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
            make += ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
            subprocess.run([*make, "-keyout", key, "-out", cert], check=True, capture_output=True)
            cluster = Cluster(1, {"STARLING_SERVER__TLS__CERT": cert, "STARLING_SERVER__TLS__KEY": key})
            self.addCleanup(cluster.stop)
            url = cluster.urls[0].replace("http://127.0.0.1", "https://localhost")
            for transports in (["websocket"], ["polling"], None):
                with self.subTest(transports=transports):
                    session = requests.Session()
                    # A bundle named in the environment would win over ours.
                    session.trust_env, session.verify = False, cert
                    client = socketio.Client(reconnection=False, http_session=session)
                    client.connect(url, transports=transports, wait_timeout=ANSWER_SECONDS)
                    self.assertTrue(client.call("room:join", {"room": "r"}, timeout=ANSWER_SECONDS)["ok"])
                    client.disconnect()
            strict = socketio.Client(reconnection=False)
            with self.assertRaises(socketio.exceptions.ConnectionError):
                strict.connect(url, wait_timeout=ANSWER_SECONDS)


if __name__ == "__main__":
    unittest.main()
