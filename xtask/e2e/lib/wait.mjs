// Waiting for something to become true, with a limit and a sentence for when it does not.

const STEP_MS = 20;

export const pause = (ms) => new Promise((done) => setTimeout(done, ms));

/** Resolves when `holds` answers true; rejects after `ms` naming what was waited for. */
export async function until(holds, ms, what) {
  const end = performance.now() + ms;
  while (!(await holds())) {
    if (performance.now() > end) throw new Error(`waited ${ms} ms for ${what()}`);
    await pause(STEP_MS);
  }
}
