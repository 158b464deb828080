// SPDX-License-Identifier: Apache-2.0
// Memory over time: what lives, stacked by finding and verdict, and resident memory above it.

import { max } from "d3-array";
import { axisBottom, axisLeft } from "d3-axis";
import { brushX, type D3BrushEvent } from "d3-brush";
import { scaleLinear } from "d3-scale";
import { select as pick } from "d3-selection";
import { area, line, stack } from "d3-shape";

import type { Answer, Profile } from "./data";
import { h, replace, s } from "./dom";
import type { Page } from "./main";
import { timeText } from "./plots";
import { CLASSES, classOf } from "./tree";
import { bytesText } from "./words";

const HEIGHT = 260;
const LEFT = 66;
const RIGHT = 12;
const TOP = 10;
const BOTTOM = 28;
const LAYERS = 8; // findings with a layer of their own
const OTHERS = ["other lost or leaking", "other growing or unknown", "other, harmless", "other, known or no finding"];

const RESIDENT = "in memory, without files (resident)";

interface Layer {
  name: string;
  style: string;
  key: string | null;
  values: Float64Array;
}

export class Memory {
  readonly element: HTMLElement;
  private readonly plot = h("div", { class: "memory" });
  private readonly said = h("p", { class: "said", "aria-live": "polite" });
  private readonly layers: Layer[];
  private readonly ends: HTMLInputElement[];
  private clear: () => void = () => undefined;
  private width = 0;

  constructor(
    private readonly page: Page,
    answer: Answer,
    private readonly profile: Profile,
  ) {
    this.layers = layersOf(answer, profile);
    const rows = profile.times.length;
    this.ends = ["from", "to"].map((name, n) =>
      h("input", {
        type: "range",
        min: "0",
        max: String(rows - 1),
        value: n ? String(rows - 1) : "0",
        "aria-label": `span ${name}`,
        oninput: () => this.ranged(),
      }),
    );
    this.element = h(
      "section",
      { id: "memory", "aria-labelledby": "memory-title" },
      h("h2", { id: "memory-title" }, "Memory over time"),
      this.plot,
      h(
        "div",
        { class: "controls" },
        "Span: ",
        ...this.ends,
        h("button", { type: "button", onclick: () => this.reset() }, "whole run"),
      ),
      this.said,
      h(
        "p",
        { class: "legend" },
        ...[...this.layers].reverse().map((layer) => {
          const swatch = s("svg", { class: "swatch", width: "12", height: "12", "aria-hidden": "true" }, s("rect", { class: layer.style, width: 12, height: 12 }));
          return layer.key === null
            ? h("span", { class: "entry" }, swatch, " ", layer.name)
            : h("button", { type: "button", class: "entry link", onclick: () => page.open(layer.key!) }, swatch, " ", layer.name);
        }),
        profile.resident ? h("span", { class: "entry" }, s("svg", { class: "swatch", width: "12", height: "12", "aria-hidden": "true" }, s("line", { class: "resident", x1: 0, x2: 12, y1: 6, y2: 6 })), " ", RESIDENT) : null,
      ),
    );
    new ResizeObserver(() => this.fit()).observe(this.plot);
    this.tell();
  }

  /** Draw, where the room for it is another than before. */
  fit(): void {
    const room = this.plot.clientWidth;
    if (room > 2 * LEFT && Math.abs(room - this.width) > 2) {
      this.width = room;
      this.draw(room);
    }
  }

  private ranged(): void {
    const [a, b] = this.ends.map((each) => Number(each.value)).sort((x, y) => x - y);
    const last = this.profile.times.length - 1;
    this.page.setSpan(a === 0 && b === last ? null : a < b ? { from: a, to: b } : { from: Math.max(a - 1, 0), to: Math.max(a, 1) });
    this.clear();
    this.tell();
    this.shade();
  }

  private reset(): void {
    this.page.setSpan(null);
    this.follow();
    this.clear();
    this.tell();
    this.shade();
  }

  /** The sliders stand where the span is. */
  private follow(): void {
    const span = this.page.span;
    this.ends[0].value = String(span?.from ?? 0);
    this.ends[1].value = span ? String(span.to) : this.ends[1].max;
  }

  private tell(): void {
    const { times, live, resident } = this.profile;
    const span = this.page.span ?? { from: 0, to: times.length - 1 };
    let text = `${timeText(times[span.from])} to ${timeText(times[span.to])}: live ${bytesText(live[span.from])} to ${bytesText(live[span.to])}`;
    // 0: nobody looked at that moment.
    if (resident?.[span.to]) text += `, resident ${resident[span.from] ? `${bytesText(resident[span.from])} to ` : ""}${bytesText(resident[span.to])}`;
    if (this.page.span) {
      const known = this.profile.courseOf.length;
      text += `. Graph and table show this span` + (known < this.profile.nodes.length ? `, of the ${known.toLocaleString("en-US")} heaviest call stacks.` : ".");
    }
    this.said.textContent = text;
  }

  private shade: () => void = () => undefined;

  private draw(width: number): void {
    const { times, resident } = this.profile;
    const rows = times.length;
    const stacked = stack<number, Layer>()
      .keys(this.layers)
      .value((row, layer) => layer.values[row])(Array.from({ length: rows }, (_, n) => n));
    const top = max(stacked[stacked.length - 1] ?? [], (each) => each[1]) ?? 0;
    const highest = Math.max(top, resident ? max(resident) ?? 0 : 0, 1);
    const x = scaleLinear([0, times[rows - 1] || 1], [LEFT, width - RIGHT]);
    const y = scaleLinear([0, highest], [HEIGHT - BOTTOM, TOP]);
    const svg = s("svg", { width, height: HEIGHT, role: "img", "aria-label": "Live bytes over time, stacked by finding" });
    const shape = area<[number, number]>()
      .x((_, n) => x(times[n]))
      .y0((each) => y(each[0]))
      .y1((each) => y(each[1]));
    stacked.forEach((each) => {
      const path = s("path", { class: `layer ${each.key.style}`, d: shape(each as unknown as [number, number][]) ?? "" }, s("title", {}, each.key.name));
      svg.append(path);
    });
    if (resident) {
      const drawn = line<number>((_, n) => x(times[n]), (value) => y(value)).defined((value) => value > 0);
      const path = drawn(Array.from(resident)) ?? "";
      svg.append(s("path", { class: "resident", d: path }, s("title", {}, RESIDENT)));
    }
    const shade = s("rect", { class: "span", y: TOP, height: HEIGHT - TOP - BOTTOM, width: 0 });
    svg.append(shade);
    this.shade = () => {
      const span = this.page.span;
      shade.setAttribute("x", String(span ? x(times[span.from]) : 0));
      shade.setAttribute("width", String(span ? Math.max(x(times[span.to]) - x(times[span.from]), 1) : 0));
    };
    this.shade();
    const left = s("g", { class: "scale", transform: `translate(${LEFT},0)` });
    const bottom = s("g", { class: "scale", transform: `translate(0,${HEIGHT - BOTTOM})` });
    pick(left as SVGGElement).call(axisLeft(y).tickValues(binaryTicks(highest)).tickFormat((v) => bytesText(Number(v))));
    pick(bottom as SVGGElement).call(axisBottom(x).ticks(Math.max(width / 130, 2)).tickFormat((v) => timeText(Number(v))));
    svg.append(left, bottom);
    const brush = brushX<unknown>()
      .extent([[LEFT, TOP], [width - RIGHT, HEIGHT - BOTTOM]])
      .on("end", (event: D3BrushEvent<unknown>) => {
        if (!event.sourceEvent) return;
        const chosen = event.selection as [number, number] | null;
        this.page.setSpan(chosen ? this.rows(x.invert(chosen[0]), x.invert(chosen[1])) : null);
        this.follow();
        this.tell();
        this.shade();
      });
    const group = s("g", { class: "brush" });
    svg.append(group);
    pick<SVGGElement, unknown>(group).call(brush);
    this.clear = () => pick<SVGGElement, unknown>(group).call(brush.move, null);
    replace(this.plot, svg);
  }

  /** The moments nearest to two times, one after the other. */
  private rows(low: number, high: number): { from: number; to: number } {
    const times = Array.from(this.profile.times);
    const nearest = (time: number): number =>
      times.reduce((best, each, n) => (Math.abs(each - time) < Math.abs(times[best] - time) ? n : best), 0);
    const from = nearest(low);
    const to = nearest(high);
    return from < to ? { from, to } : { from: Math.max(from - 1, 0), to: Math.min(from + 1, times.length - 1) };
  }
}

function binaryTicks(highest: number): number[] {
  let step = 1;
  while (highest / step > 8) step *= 2;
  const found = [];
  for (let at = 0; at <= highest; at += step) found.push(at);
  return found;
}

function layersOf(answer: Answer, profile: Profile): Layer[] {
  const rows = profile.times.length;
  const last = (site: number): number => {
    const row = profile.courseRow[site];
    let most = 0;
    for (let n = 0; n < rows; n++) most = Math.max(most, profile.courses[row * rows + n]);
    return most;
  };
  const alone = answer.results
    .filter((each) => each.site !== null && profile.courseRow[each.site] >= 0 && each.quiet === null)
    .map((each) => ({ result: each, site: each.site!, size: last(each.site!) }))
    .sort((a, b) => b.size - a.size)
    .slice(0, LAYERS);
  const shown = new Set(alone.map((each) => each.site));
  const others = CLASSES.map(() => new Float64Array(rows));
  const layers: Layer[][] = CLASSES.map(() => []);
  const known = new Float64Array(rows);
  for (let row = 0; row < profile.courseOf.length; row++) {
    const site = profile.courseOf[row];
    const which = classOf(profile.verdictNames[profile.verdicts[site]]);
    for (let n = 0; n < rows; n++) {
      const value = profile.courses[row * rows + n];
      known[n] += value;
      if (!shown.has(site)) others[which][n] += value;
    }
  }
  for (const { result, site } of alone) {
    const which = classOf(result.verdict);
    const at = profile.courseRow[site] * rows;
    layers[which].push({
      name: `${result.verdict}: ${result.title}`,
      style: `${CLASSES[which]}-${layers[which].length % 3}`,
      key: result.key,
      values: Float64Array.from(profile.courses.subarray(at, at + rows)),
    });
  }
  for (let n = 0; n < rows; n++) others[3][n] += Math.max(profile.live[n] - known[n], 0);
  CLASSES.forEach((name, which) => {
    if (others[which].some((value) => value > 0)) {
      layers[which].push({ name: OTHERS[which], style: `${name}-other`, key: null, values: others[which] });
    }
  });
  return layers.flat();
}
