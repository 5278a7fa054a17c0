"""Runs Autobahn's cases against an Engine.IO echo server: `run.py ws://HOST:PORT/engine.io/ [CASE …]`, a case being `6.4.1`
or `6.*`. Exits 0 when every case is as required; the last line is `N passed, N failed`.

The server under test is the product itself, not a bare WebSocket: a text message is an Engine.IO packet and begins with its
type, so this client writes `4` at the beginning of each text message and takes it off again from what comes back. All other
octets on the wire are the suite's own.
"""

import re
import sys
import time
from collections import Counter

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol, connectWS
from autobahn.websocket.protocol import WebSocketProtocol
from twisted.internet import reactor

from cases import Cases, letters, number, octets

TEXT = 1
MESSAGE = b"4"
OPEN = b"0"

# `UNIMPLEMENTED` is what a case says that needs an extension which the server did not accept.
GOOD = {"OK", "INFORMATIONAL", "NON-STRICT", "UNIMPLEMENTED"}
GOOD_CLOSE = {"OK", "INFORMATIONAL"}
# The only extension there is: permessage-deflate, which Starling does not offer.
MAY_BE_UNIMPLEMENTED = ("12.", "13.")
# The client's own patience is one second, which a loaded machine may need for a close alone.
TIMES = {"openHandshakeTimeout": 20, "closeHandshakeTimeout": 10, "serverConnectionDropTimeout": 10}
# More time than the slowest case takes; a server that never closes must not stop the run.
PATIENCE = 60


class Client(WebSocketClientProtocol):
    """One connection, for one case. The case calls it as the suite's own client was called."""

    def connectionMade(self):
        self.connectionWasOpen = False
        self.createWirelog = True
        self.txFrameStats = Counter()
        self.begin = time.monotonic()
        self.case = self.factory.case(self)
        self.compressed = number(self.factory.case).startswith(MAY_BE_UNIMPLEMENTED)
        self.limit = reactor.callLater(PATIENCE, self.transport.abortConnection)
        super().connectionMade()

    # The packet type of text.

    def sendFrame(self, opcode, payload=b"", payload_len=None, **options):
        payload = octets(payload)
        if payload_len is not None:
            payload = (payload * (payload_len // max(len(payload), 1) + 1))[:payload_len]
        if opcode == TEXT and not self.compressed:
            payload = MESSAGE + payload
        return super().sendFrame(opcode, payload, **options)

    def beginMessage(self, isBinary=False, **options):
        self.typed = isBinary or self.compressed
        return super().beginMessage(isBinary, **options)

    def beginMessageFrame(self, length):
        if self.typed:
            return super().beginMessageFrame(length)
        self.typed = True
        super().beginMessageFrame(length + len(MESSAGE))
        return super().sendMessageFrameData(MESSAGE)

    def onMessage(self, payload, isBinary):
        if not isBinary:
            if payload.startswith(OPEN):
                return
            payload = payload[len(MESSAGE):]
        self.case.onMessage(payload if self.compressed else letters(payload), isBinary)

    # What the cases send is in letters, and the rules they break are theirs to break.

    def sendMessage(self, payload, isBinary=False, **options):
        return super().sendMessage(octets(payload), isBinary, **options)

    def sendMessageFrameData(self, payload, sync=False):
        return super().sendMessageFrameData(octets(payload), sync)

    def sendCloseFrame(self, code=None, reasonUtf8=None, isReply=False):
        return super().sendCloseFrame(code, octets(reasonUtf8), isReply)

    def sendClose(self, code=None, reason=None):
        if self.state != WebSocketProtocol.STATE_OPEN:
            return
        if code in (None, 1000) or 3000 <= code <= 4999:
            super().sendClose(code, reason)
        else:
            self.sendCloseFrame(code=code, reasonUtf8=reason)

    # What the cases ask of their client.

    def _later(self, seconds, call):
        reactor.callLater(seconds, lambda: self.state != WebSocketProtocol.STATE_CLOSED and call())

    def continueLater(self, seconds, call, tag=None):
        self._later(seconds, call)

    def killAfter(self, seconds):
        self._later(seconds, self._fail_connection)

    def closeAfter(self, seconds):
        self._later(seconds, self.sendClose)

    def enableWirelog(self, enable):
        pass

    def logTxFrame(self, header, *_):
        self.txFrameStats[header.opcode] += 1

    def logRxFrame(self, *_):
        pass

    logTxOctets = logRxOctets = logRxFrame

    # What the cases are told.

    def onConnect(self, response):
        pass

    def onOpen(self):
        self.connectionWasOpen = True
        self.case.onOpen()

    def onPong(self, payload):
        self.case.onPong(letters(payload))

    def onClose(self, wasClean, code, reason):
        self.case.onClose(wasClean, code, reason)

    def connectionLost(self, reason):
        if self.limit.active():
            self.limit.cancel()
        super().connectionLost(reason)
        self.case.onConnectionLost(self.failedByMe)
        self.factory.finish(self.case)


class Run(WebSocketClientFactory):
    """All chosen cases, one connection each, one after another."""

    protocol = Client

    def __init__(self, url, chosen):
        super().__init__(url, useragent="autobahn")
        self.left = list(reversed(chosen))
        self.case = self.left.pop()
        self.results = {}

    def buildProtocol(self, address):
        # A case may have changed them.
        self.resetProtocolOptions()
        self.setProtocolOptions(failByDrop=False, **TIMES)
        self.logFrames = self.logOctets = True
        return super().buildProtocol(address)

    def finish(self, case):
        self.results[number(self.case)] = case

    def clientConnectionLost(self, connector, reason):
        if self.left:
            self.case = self.left.pop()
            reactor.callLater(0, connector.connect)
        else:
            reactor.stop()

    def clientConnectionFailed(self, connector, reason):
        print("cannot connect:", reason.getErrorMessage())
        reactor.stop()


def good(name, case):
    if case.behavior == "UNIMPLEMENTED" and not name.startswith(MAY_BE_UNIMPLEMENTED):
        return False
    return case.behavior in GOOD and case.behaviorClose in GOOD_CLOSE


def chosen(patterns):
    wanted = [re.compile(re.escape(pattern).replace(r"\*", ".*") + "$") for pattern in patterns or ["*"]]
    return [case for case in Cases if any(pattern.match(number(case)) for pattern in wanted)]


def main(url, *patterns):
    cases = chosen(patterns)
    if not cases:
        sys.exit(f"no case is called {' or '.join(patterns)}")
    run = Run(url, cases)
    begin = time.monotonic()
    connectWS(run)
    reactor.run()
    bad = {name: case for name, case in run.results.items() if not good(name, case)}
    for name, case in bad.items():
        print(f"{name}: {case.behavior}, close {case.behaviorClose} {case.p.remoteCloseCode}: {case.result} {case.resultClose}"[:400])
    seen = Counter(case.behavior for case in run.results.values())
    said = ", ".join(f"{count} {behavior}" for behavior, count in sorted(seen.items()))
    print(f"{len(run.results)} of {len(Cases)} cases in {time.monotonic() - begin:.0f} s: {said}")
    failed = len(bad) + len(cases) - len(run.results)
    print(f"{len(cases) - failed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
