// SPDX-License-Identifier: Apache-2.0
// Small plots as SVG, with a sentence for those who do not see them.

import { line } from "d3-shape";

import type { Course, Data, Lives, Numbers } from "./data";
import { s, unique } from "./dom";
import { amountText, bytesText, countText, durationText, plural } from "./words";

const WIDTH = 320;
const HEIGHT = 130;
const LEFT = 4;
const BOTTOM = 16;
const TOP = 14;

function frame(title: string, width: number, height: number): SVGSVGElement {
  const id = unique("plot");
  return s(
    "svg",
    { class: "plot", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-labelledby": id },
    s("title", { id }, title),
  );
}

function label(x: number, y: number, text: string, anchor = "start"): SVGTextElement {
  return s("text", { x, y, "text-anchor": anchor }, text);
}

/** Nice times: minutes and hours where it is about those. */
export function timeText(nanoseconds: number): string {
  return nanoseconds <= 0 ? "0" : durationText(nanoseconds);
}

/** Live bytes of one place over time. `span` are two moments. */
export function coursePlot(
  name: string,
  times: Numbers,
  values: Numbers,
  end: number,
  span: [number, number] | null,
): SVGSVGElement {
  let most = 1;
  for (const value of values) most = Math.max(most, value);
  const x = (time: number): number => LEFT + (time / Math.max(end, 1)) * (WIDTH - 2 * LEFT);
  const y = (value: number): number => HEIGHT - BOTTOM - (value / most) * (HEIGHT - BOTTOM - TOP);
  const path = line<number>((_, n) => x(times[n]), (_, n) => y(values[n]))(Array.from(values)) ?? "";
  const plot = frame(`${name}: ${bytesText(values[0] ?? 0)} at first, ${bytesText(values[values.length - 1] ?? 0)} at last`, WIDTH, HEIGHT);
  if (span) {
    plot.append(s("rect", { class: "span", x: x(span[0]), y: TOP, width: Math.max(x(span[1]) - x(span[0]), 1), height: HEIGHT - BOTTOM - TOP }));
  }
  plot.append(
    s("line", { class: "axis", x1: LEFT, x2: WIDTH - LEFT, y1: y(0), y2: y(0) }),
    s("path", { class: "line", d: path }),
    label(LEFT, 10, `${name}, at most ${bytesText(most)}`),
    label(LEFT, HEIGHT - 4, "0"),
    label(WIDTH - LEFT, HEIGHT - 4, timeText(end), "end"),
  );
  return plot;
}

/** When the living blocks were allocated. */
export function birthsPlot(lives: Lives, end: number): SVGSVGElement {
  const most = Math.max(...lives.births, 1);
  const plot = frame(`Births of the ${plural(sum(lives.births), "block")} that live, over the run`, WIDTH, HEIGHT);
  const step = (WIDTH - 2 * LEFT) / lives.births.length;
  lives.births.forEach((count, n) => {
    const height = (count / most) * (HEIGHT - BOTTOM - TOP);
    plot.append(
      s("rect", { class: "living", x: LEFT + n * step, y: HEIGHT - BOTTOM - height, width: Math.max(step - 1, 1), height }),
    );
  });
  plot.append(
    s("line", { class: "axis", x1: LEFT, x2: WIDTH - LEFT, y1: HEIGHT - BOTTOM, y2: HEIGHT - BOTTOM }),
    label(LEFT, 10, `when what lives was allocated, at most ${plural(most, "block")} at once`),
    label(LEFT, HEIGHT - 4, "0"),
    label(WIDTH - LEFT, HEIGHT - 4, timeText(end), "end"),
  );
  return plot;
}

/** Ages of the living and of the dead on one logarithmic axis. */
export function agesPlot(lives: Lives): SVGSVGElement {
  const height = HEIGHT;
  const used = (n: number): boolean => lives.living[n] > 0 || lives.dead[n] > 0;
  let last = lives.living.length - 1;
  while (last > 6 && !used(last)) last -= 1;
  const step = (WIDTH - 2 * LEFT) / (last + 1);
  const middle = TOP + (height - TOP - BOTTOM) / 2;
  const room = (height - TOP - BOTTOM) / 2 - 2;
  const mostLiving = Math.max(...lives.living, 1);
  const mostDead = Math.max(...lives.dead, 1);
  const plot = frame(
    `Ages: ${plural(sum(lives.living), "living block")} above, ${countText(sum(lives.dead))} freed below` +
      (lives.lifetimeNs === null ? "" : `; 99 % of those freed were younger than ${durationText(lives.lifetimeNs)}`),
    WIDTH,
    height,
  );
  for (let n = 0; n <= last; n++) {
    const up = (lives.living[n] / mostLiving) * room;
    const down = (lives.dead[n] / mostDead) * room;
    const x = LEFT + n * step;
    plot.append(
      s("rect", { class: "living", x, y: middle - up, width: Math.max(step - 1, 1), height: up }),
      s("rect", { class: "dead", x, y: middle, width: Math.max(step - 1, 1), height: down }),
    );
  }
  plot.append(s("line", { class: "axis", x1: LEFT, x2: WIDTH - LEFT, y1: middle, y2: middle }));
  if (lives.lifetimeNs !== null) {
    const at = Math.log2(lives.lifetimeNs / lives.tickNs) + 1;
    const x = LEFT + Math.min(at, last + 1) * step;
    const right = x > WIDTH / 2;
    plot.append(
      s("line", { class: "mark", x1: x, x2: x, y1: TOP, y2: height - BOTTOM }),
      label(right ? x - 3 : x + 3, height - BOTTOM - 3, `99 % freed by ${durationText(lives.lifetimeNs)}`, right ? "end" : "start"),
    );
  }
  plot.append(
    label(LEFT, 10, `ages: living ↑ (${countText(sum(lives.living))}), freed ↓ (${countText(sum(lives.dead))})`),
    label(LEFT, height - 4, `< ${durationText(lives.tickNs)}`),
    label(WIDTH / 2, height - 4, durationText(lives.tickNs * 2 ** Math.floor(last / 2)), "middle"),
    label(WIDTH - LEFT, height - 4, `${durationText(lives.tickNs * 2 ** last)} (log)`, "end"),
  );
  return plot;
}

function sum(values: number[]): number {
  return values.reduce((a, b) => a + b, 0);
}

/** One gauge of a watch, with its fitted line and the limit that it runs into. */
export function gaugePlot(data: Data, course: Course, width = 360, height = 130): SVGSVGElement {
  const times = data.column(course.times);
  const values = data.column(course.values);
  const plot = frame(`${course.subject}, ${course.name}: ${course.sentence}`, width, height);
  if (times.length < 2) {
    plot.append(label(8, height / 2, "a single value"));
    return plot;
  }
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  for (const [, value] of course.fit) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  const limitSeen = course.limit !== null && course.limit <= high * 3 && course.limit >= low;
  if (limitSeen && course.limit !== null) high = Math.max(high, course.limit);
  const span = high - low || 1;
  const first = times[0];
  const long = Math.max(times[times.length - 1] - first, 1);
  const x = (time: number): number => LEFT + ((time - first) / long) * (width - 2 * LEFT);
  const y = (value: number): number => height - BOTTOM - ((value - low) / span) * (height - BOTTOM - TOP - 4);
  const clip = (value: number): number => Math.min(Math.max(y(value), TOP), height - BOTTOM);
  if (course.fit.length === 2) {
    const [a, b] = course.fit;
    plot.append(
      s("polygon", {
        class: "interval",
        points: `${x(a[0])},${clip(a[2])} ${x(b[0])},${clip(b[2])} ${x(b[0])},${clip(b[3])} ${x(a[0])},${clip(a[3])}`,
      }),
    );
  }
  for (const [time, reason] of course.cuts) {
    if (time < first || time > first + long) continue;
    plot.append(
      s("line", { class: "cut", x1: x(time), x2: x(time), y1: TOP, y2: height - BOTTOM }, s("title", {}, reason)),
      label(x(time) + 2, TOP + 9, reason),
    );
  }
  // What lies on both sides of a cut is not one line.
  const edges = course.cuts.map(([time]) => time);
  let part = 0;
  let path = "";
  for (let n = 0; n < times.length; n++) {
    const now = edges.filter((edge) => edge <= times[n]).length;
    path += `${n === 0 || now !== part ? "M" : "L"}${x(times[n]).toFixed(1)},${y(values[n]).toFixed(1)}`;
    part = now;
  }
  plot.append(s("path", { class: "line", d: path }));
  if (course.fit.length === 2) {
    const [a, b] = course.fit;
    plot.append(s("line", { class: "fit", x1: x(a[0]), y1: y(a[1]), x2: x(b[0]), y2: y(b[1]) }));
  }
  if (limitSeen && course.limit !== null) {
    plot.append(s("line", { class: "limit", x1: LEFT, x2: width - LEFT, y1: y(course.limit), y2: y(course.limit) }));
  }
  plot.append(
    label(LEFT, 10, amountText(high, course.unit)),
    label(LEFT, height - 4, amountText(low, course.unit)),
    label(width - LEFT, height - 4, timeText(long), "end"),
  );
  return plot;
}
