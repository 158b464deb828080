// SPDX-License-Identifier: Apache-2.0
// The graph of call stacks: drawn on a canvas, because a large program has more frames than a
// page can have elements; only what is wide enough to be seen is drawn.

import type { Data, Profile } from "./data";
import { checkbox, colour, h, replace, select } from "./dom";
import type { Page } from "./main";
import { CLASSES, type Order, Tree } from "./tree";
import { amountText, percentText, signedAmount } from "./words";

const ROW = 19;
const NARROWEST = 0.7; // pixels
const DEEPEST = 160;

export const MEASURES: Record<string, [text: string, unit: string]> = {
  live_bytes: ["live bytes", "bytes"],
  lost_bytes: ["lost bytes", "bytes"],
  alloc_bytes: ["allocated bytes", "bytes"],
  peak_bytes: ["peak bytes", "bytes"],
  live_count: ["live blocks", "count"],
  lost_count: ["lost blocks", "count"],
  allocs: ["allocations", "count"],
  frees: ["frees", "count"],
};

interface Drawn {
  node: number;
  x: number;
  y: number;
  width: number;
}

export class Flame {
  readonly element: HTMLElement;
  private readonly canvas = h("canvas", {
    tabindex: "0",
    role: "application",
    "aria-label": "Graph of call stacks; arrow keys move, Enter zooms, Escape goes back",
  });
  private readonly tip = h("div", { class: "tip", hidden: true });
  private readonly said = h("p", { class: "said", "aria-live": "polite" });
  private readonly path = h("p", { class: "crumbs" });
  private readonly controls = h("div", { class: "controls" });
  private tree: Tree | null = null;
  private drawn: Drawn[] = [];
  private order: Order = "stacks";
  private icicle = true;
  private hideRuntime = false;
  private focus = -1;
  private root = 0;
  private chosen = 0;
  private measure = "";
  private compare = -1;
  private matching: Uint8Array | null = null;
  private wanted: Uint8Array | null = null;
  private width = 0;
  private colours: Record<string, string[]> | null = null;

  constructor(
    private readonly data: Data,
    private readonly page: Page,
    private readonly profile: Profile,
    private readonly number: number,
  ) {
    if (data.compare && data.compare[1] === number) this.compare = data.compare[0];
    const first = Object.keys(MEASURES).filter((name) => this.offered(name));
    this.measure = this.compare < 0 && this.sum("lost_bytes") > 0 && page.answers[number].results.some((r) => r.verdict === "lost")
      ? "lost_bytes"
      : first.includes("live_bytes") ? "live_bytes" : first[0] ?? "live_bytes";
    this.element = h(
      "section",
      { id: "graph", "aria-labelledby": "graph-title" },
      h("h2", { id: "graph-title" }, "Call stacks"),
      this.controls,
      this.path,
      h("div", { class: "flame" }, this.canvas, this.tip),
      this.said,
      h("p", { class: "legend" }, ...this.legend()),
    );
    this.listen();
    this.rebuild();
  }

  private legend(): HTMLElement[] {
    const texts: Record<string, string> = {
      alarm: "lost or leaking",
      warning: "growing, filling or unknown",
      calm: "judged harmless",
      quiet: "known, or no finding",
      run: "matches the filter",
      grew: "grew",
      shrank: "shrank",
    };
    return Object.entries(texts).map(([name, text]) => h("span", { class: `key ${name}` }, text));
  }

  private sum(name: string): number {
    let sum = 0;
    for (const value of this.profile.measures[name] ?? []) sum += value;
    return sum;
  }

  private get other(): Profile | null {
    return this.compare >= 0 ? this.page.answers[this.compare]?.profile ?? null : null;
  }

  /** Whether there is something to show of a measure, which both sides of a comparison know. */
  private offered(name: string): boolean {
    const profiles = this.other ? [this.profile, this.other] : [this.profile];
    if (name.startsWith("span")) return this.page.span !== null && profiles.every((each) => each.courseOf.length > 0);
    return profiles.every((each) => each.measures[name]) && profiles.some((each) => each.measures[name].some((value) => value > 0));
  }

  private get unit(): string {
    return this.measure.startsWith("span") ? "bytes" : MEASURES[this.measure]?.[1] ?? "bytes";
  }

  private showControls(): void {
    const measures: [string, string][] = Object.entries(MEASURES)
      .filter(([name]) => this.offered(name))
      .map(([name, [text]]) => [name, text]);
    if (this.offered("span_grown")) measures.unshift(["span_grown", "grown in the span"], ["span_end", "live at the end of the span"]);
    const others: [string, string][] = this.page.answers
      .map((answer, n): [string, string] => [String(n), `${n + 1}. ${answer.subject}`])
      .filter(([n]) => Number(n) !== this.number && this.page.answers[Number(n)].profile);
    replace(
      this.controls,
      select("Show", measures, this.measure, (value) => this.set(() => (this.measure = value))),
      select(
        "by",
        [
          ["stacks", "stack, from its start"],
          ["callers", this.focus >= 0 ? "its callers" : "callers"],
          ["callees", this.focus >= 0 ? "its callees" : "callees"],
        ],
        this.order,
        (value) => this.set(() => (this.order = value as Order)),
      ),
      checkbox("hide run-time frames", this.hideRuntime, (value) => this.set(() => (this.hideRuntime = value))),
      checkbox("flames upwards", !this.icicle, (value) => {
        this.icicle = !value;
        this.draw();
      }),
      others.length
        ? select("Compare with", [["-1", "nothing"], ...others], String(this.compare), (value) =>
            this.set(() => (this.compare = Number(value))),
          )
        : null,
      h("button", { type: "button", onclick: () => this.zoom(0) }, "zoom out"),
      this.focus >= 0
        ? h("button", { type: "button", onclick: () => this.set(() => (this.focus = -1)) }, "all functions")
        : h("button", { type: "button", onclick: () => this.around() }, "around the chosen one"),
    );
  }

  private set(change: () => void): void {
    change();
    this.root = this.chosen = 0;
    this.rebuild();
  }

  private around(): void {
    if (!this.tree || !this.chosen) {
      this.say("Choose a function in the graph first.");
      return;
    }
    const group = this.tree.groupOf(this.chosen);
    this.set(() => {
      this.focus = group;
      if (this.order === "stacks") this.order = "callers";
    });
  }

  private values(profile: Profile): Float64Array {
    const none = new Float64Array(profile.nodes.length);
    if (!this.measure.startsWith("span")) return profile.measures[this.measure] ?? none;
    const span = this.page.span;
    if (!span) return none;
    return this.measure === "span_end" ? this.page.atEnd(profile, span) : this.page.grown(profile, span);
  }

  /** After a change of what is shown: the tree itself. */
  rebuild(): void {
    const refused = this.common();
    const profiles = [this.profile];
    if (this.other) profiles.push(this.other);
    this.tree = new Tree(profiles, this.data.places, this.order, this.hideRuntime, this.focus);
    this.showControls();
    this.reweigh();
    this.say(refused);
  }

  /** Take a measure that both sides know, and compare nothing where there is none; say so. */
  private common(): string {
    if (!this.other || this.offered(this.measure)) return "";
    const known = [...Object.keys(MEASURES), "span_grown"].find((name) => this.offered(name));
    const [text] = MEASURES[this.measure] ?? ["the span"];
    if (known) {
      this.measure = known;
      return `${text}: not known of both, so ${MEASURES[known]?.[0] ?? "the span"} is compared.`;
    }
    this.compare = -1;
    return "Nothing is known of both, so they cannot be compared.";
  }

  /** After a change of the filter or span: what the nodes of the tree hold. */
  reweigh(): void {
    if (!this.tree) return;
    if (!this.page.span && this.measure.startsWith("span")) this.measure = "live_bytes";
    this.tree.weigh(this.tree.profiles.map((each) => this.values(each)), [null, null]);
    if (this.tree.weight[this.root] <= 0) this.root = 0;
    this.draw();
  }

  spanChanged(): void {
    const timed = this.offered("span_grown");
    this.measure = timed ? "span_grown" : this.measure.startsWith("span") ? "live_bytes" : this.measure;
    this.showControls();
    this.reweigh();
  }

  filter(matching: Uint8Array | null, wanted: Uint8Array | null): void {
    this.matching = matching;
    this.wanted = wanted;
    this.draw();
    this.tell(this.chosen);
  }

  /** After a change of the colours of the page. */
  recolour(): void {
    this.colours = null;
    this.draw();
  }

  zoom(node: number): void {
    this.root = node;
    this.chosen = node;
    this.draw();
    this.tell(node);
  }

  // -- drawing ----------------------------------------------------------------

  draw(): void {
    const tree = this.tree;
    if (!tree) return;
    // Not asked of the element each time: that would lay out the page in the middle of a change.
    const { width } = this;
    if (!width) return; // not on the page yet
    this.drawn = [];
    const whole = tree.weight[this.root];
    const ancestors: number[] = [];
    for (let node = this.root; node; ) {
      node = tree.parentOf(node);
      ancestors.unshift(node);
    }
    ancestors.forEach((node, row) => this.drawn.push({ node, x: 0, y: row, width }));
    let deepest = ancestors.length;
    const walk = (node: number, x: number, row: number, room: number): void => {
      this.drawn.push({ node, x, y: row, width: room });
      deepest = Math.max(deepest, row);
      if (row - ancestors.length >= DEEPEST) return;
      let at = x;
      for (const child of tree.childrenOf(node)) {
        const part = (tree.weight[child] / whole) * width;
        if (part < NARROWEST) break; // the rest are narrower still
        walk(child, at, row + 1, part);
        at += part;
      }
    };
    if (whole > 0) walk(this.root, 0, ancestors.length, width);
    const rows = deepest + 1;
    const scale = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(width * scale);
    this.canvas.height = Math.round(rows * ROW * scale);
    this.canvas.style.height = `${rows * ROW}px`;
    const context = this.canvas.getContext("2d");
    if (!context) return;
    context.scale(scale, scale);
    context.font = "12px system-ui, sans-serif";
    context.textBaseline = "middle";
    const fills = (this.colours ??= this.fills());
    const ink = fills["line"][2];
    for (const each of this.drawn) {
      if (!this.icicle) each.y = rows - 1 - each.y;
      this.box(context, each, fills, ink);
    }
    if (whole <= 0) context.fillText("nothing of it here", 8, ROW / 2);
    this.crumbs();
    if (!this.icicle) this.canvas.parentElement?.scrollTo(0, this.canvas.offsetHeight);
  }

  private fills(): Record<string, string[]> {
    const found: Record<string, string[]> = {};
    for (const name of CLASSES) found[name] = [0, 1, 2].map((n) => colour(`${name}-${n}`));
    found["grew"] = [1, 2, 3].map((n) => colour(`grew-${n}`));
    found["shrank"] = [1, 2, 3].map((n) => colour(`shrank-${n}`));
    found["match"] = [colour("match")];
    found["same"] = [colour("quiet-0")];
    found["line"] = [colour("back"), colour("focus"), colour("graph-ink")];
    return found;
  }

  private fill(node: number, fills: Record<string, string[]>): string {
    const tree = this.tree!;
    const group = tree.groupOf(node);
    if (this.matching && node && this.matchingGroup(group)) return fills["match"][0];
    if (this.compare >= 0 && tree.profiles.length > 1) {
      const now = tree.total[node];
      const before = tree.totalBefore[node];
      const change = (now - before) / Math.max(now, before, 1);
      if (Math.abs(change) < 0.01) return fills["same"][0];
      const strength = Math.abs(change) > 0.5 ? 2 : Math.abs(change) > 0.15 ? 1 : 0;
      return fills[change > 0 ? "grew" : "shrank"][strength];
    }
    return fills[CLASSES[tree.classOf(node)]][(group + 3) % 3];
  }

  private groupMatches: Uint8Array | null = null;
  private groupFor: Uint8Array | null = null;
  private matchingGroup(group: number): boolean {
    if (this.groupFor !== this.matching && this.matching) {
      this.groupFor = this.matching;
      this.groupMatches = new Uint8Array(this.data.places.groupPlace.length);
      this.matching.forEach((is, place) => {
        if (is && this.groupMatches) this.groupMatches[this.data.places.group[place]] = 1;
      });
    }
    return this.groupMatches?.[group] === 1;
  }

  private box(context: CanvasRenderingContext2D, each: Drawn, fills: Record<string, string[]>, ink: string): void {
    const { node, x, width } = each;
    const y = each.y * ROW;
    const above = node !== this.root && this.isAncestor(node);
    context.globalAlpha = above ? 0.55 : 1;
    context.fillStyle = this.fill(node, fills);
    context.fillRect(x, y, Math.max(width - 0.5, 0.5), ROW - 1);
    if (width > 26) {
      context.fillStyle = ink;
      const text = this.tree!.name(node);
      const room = Math.floor((width - 8) / 6.1);
      context.fillText(text.length > room ? text.slice(0, Math.max(room - 1, 1)) + "…" : text, x + 4, y + ROW / 2);
    }
    context.globalAlpha = 1;
    if (node === this.chosen) {
      context.strokeStyle = fills["line"][1];
      context.lineWidth = 2;
      context.strokeRect(x + 1, y + 1, Math.max(width - 2.5, 1), ROW - 3);
    }
  }

  private isAncestor(node: number): boolean {
    for (let each = this.root; each; each = this.tree!.parentOf(each)) if (each === node) return true;
    return node === 0 && this.root !== 0;
  }

  private crumbs(): void {
    const tree = this.tree!;
    const chain: number[] = [];
    for (let node = this.root; node; node = tree.parentOf(node)) chain.unshift(node);
    const shown = chain.length > 6 ? chain.slice(-6) : chain;
    replace(
      this.path,
      h("button", { type: "button", class: "link", onclick: () => this.zoom(0) }, tree.name(0)),
      chain.length > shown.length ? " › …" : null,
    );
    for (const node of shown) {
      this.path.append(" › ", h("button", { type: "button", class: "link", onclick: () => this.zoom(node) }, tree.name(node)));
    }
  }

  // -- mouse and keys ---------------------------------------------------------

  private at(event: MouseEvent): Drawn | null {
    const bounds = this.canvas.getBoundingClientRect();
    const x = event.clientX - bounds.left;
    const row = Math.floor((event.clientY - bounds.top) / ROW);
    return this.drawn.find((each) => each.y === row && x >= each.x && x < each.x + each.width) ?? null;
  }

  private listen(): void {
    this.canvas.addEventListener("click", (event) => {
      const hit = this.at(event);
      if (hit) this.zoom(hit.node);
    });
    this.canvas.addEventListener("mousemove", (event) => {
      const hit = this.at(event);
      this.tip.hidden = !hit;
      if (!hit) return;
      replace(this.tip, ...this.facts(hit.node).map((text, n) => h(n ? "div" : "strong", {}, text)));
      const bounds = this.canvas.parentElement!.getBoundingClientRect();
      const left = Math.min(event.clientX - bounds.left + 14, bounds.width - this.tip.offsetWidth - 4);
      this.tip.style.left = `${Math.max(left, 0)}px`;
      this.tip.style.top = `${event.clientY - bounds.top + 16 + this.canvas.parentElement!.scrollTop}px`;
    });
    this.canvas.addEventListener("mouseleave", () => (this.tip.hidden = true));
    this.canvas.addEventListener("keydown", (event) => {
      const target = this.next(event.key);
      if (event.key === "Enter") this.zoom(this.chosen);
      else if (event.key === "Escape") this.zoom(0);
      else if (target !== null) {
        this.chosen = target;
        this.draw();
        this.tell(target);
      } else return;
      event.preventDefault();
    });
    new ResizeObserver(() => this.fit()).observe(this.element);
  }

  /** Draw, where the room for it is another than before. */
  fit(): void {
    const room = this.canvas.parentElement?.clientWidth || 0;
    if (room && Math.abs(room - this.width) > 2) {
      this.width = room;
      this.draw();
    }
  }

  private next(key: string): number | null {
    const tree = this.tree!;
    const down = this.icicle ? "ArrowDown" : "ArrowUp";
    const up = this.icicle ? "ArrowUp" : "ArrowDown";
    if (key === down) return tree.childrenOf(this.chosen)[0] ?? this.chosen;
    if (key === up) return tree.parentOf(this.chosen);
    if (key === "ArrowLeft" || key === "ArrowRight") {
      const all = tree.childrenOf(tree.parentOf(this.chosen));
      const at = all.indexOf(this.chosen) + (key === "ArrowRight" ? 1 : -1);
      return all[at] ?? this.chosen;
    }
    return null;
  }

  private facts(node: number): string[] {
    const tree = this.tree!;
    const now = tree.total[node];
    const found = [tree.name(node)];
    if (node) {
      const where = this.data.places.where(tree.placeOf(node));
      if (where) found.push(where);
    }
    if (tree.profiles.length > 1) {
      const before = tree.totalBefore[node];
      const change = signedAmount(now - before, this.unit) || "no change";
      found.push(`${amountText(before, this.unit)} before, ${amountText(now, this.unit)} now: ${change}`);
    } else {
      found.push(`${amountText(now, this.unit)}, ${percentText(now, tree.total[0])} of all`);
    }
    return found;
  }

  private tell(node: number): void {
    const parts = this.tree && this.tree.weight[node] > 0 ? this.facts(node) : [];
    if (this.wanted) {
      const values = this.values(this.profile);
      let sum = 0;
      for (let site = 0; site < values.length; site++) if (this.wanted[site]) sum += values[site];
      parts.push(`the filter matches ${amountText(sum, this.unit)}, ${percentText(sum, this.tree?.total[0] ?? 0)}`);
    }
    this.say(parts.join("; "));
  }

  private say(text: string): void {
    this.said.textContent = text;
  }
}
