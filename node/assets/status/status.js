// The status page: asks its node every two seconds how the cluster is, and says when nobody answers.

const PERIOD = 2000; // milliseconds

const verdict = document.getElementById("verdict");
const members = document.getElementById("members");

refresh();

async function refresh() {
  try {
    const answer = await fetch("/api/cluster", { signal: AbortSignal.timeout(PERIOD * 2) });
    if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
    show(await answer.json());
  } catch (error) {
    say(false, `no answer: ${error.message}`);
  }
  setTimeout(refresh, PERIOD);
}

function show(report) {
  const links = new Map(report.links.map((link) => [link.node, link]));
  members.replaceChildren(...report.members.map((member) => {
    const link = links.get(member.node);
    const cells = [member.node, member.ordinal, member.state, member.connections ?? "?", member.slots,
      link ? `${link.state}, ${(link.rtt_us / 1000).toFixed(1)} ms` : "this node or none"];
    const row = document.createElement("tr");
    for (const cell of cells) row.insertCell().textContent = cell;
    return row;
  }));
  const ill = [
    ...report.members.filter((member) => member.state !== "alive").map((member) => `${member.node} is ${member.state}`),
    ...report.links.filter((link) => link.state !== "up").map((link) => `the link to ${link.node} is ${link.state}`),
    ...report.silent.map((node) => `${node} did not answer`),
  ];
  const safe = report.safe_to_lose_one ? "safe to lose a node" : "not safe to lose a node";
  say(ill.length === 0, ill.length === 0 ? `healthy, ${safe}` : ill.join("; "));
}

function say(healthy, text) {
  verdict.dataset.healthy = healthy;
  verdict.textContent = text;
}
