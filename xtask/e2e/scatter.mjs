// `node scatter.mjs URL…`: the balancer of `lib/scatter.mjs` as a process, for clients in other languages. Prints its own URL,
// then a line for each request that was refused.

import { scatter } from "./lib/scatter.mjs";

const proxy = await scatter(process.argv.slice(2).map((url) => ({ url })));
proxy.refusals.push = (refusal) => console.log(refusal);
console.log(proxy.url);
