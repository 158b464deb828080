// SPDX-License-Identifier: Apache-2.0
// The table of what was found, and of all call stacks: sorted, filtered, each row opens.

import type { Answer, Data, Result } from "./data";
import { h, replace, select } from "./dom";
import { detail, placesOf } from "./detail";
import type { Page } from "./main";
import { bytesText, countText, plural, rateText, signedAmount } from "./words";

const TITLES: Record<string, string> = { triage: "What is odd, and who holds memory", diff: "What changed" };
const STEP = 60; // rows shown at once, and more with each press

interface Row {
  result: Result | null;
  site: number | null;
  tone: string;
  quiet: boolean;
}

type Sort = "rank" | "verdict" | "title" | "amount" | "change" | "count" | "rate" | "allocs" | "span";
const COLUMNS: [Sort, string][] = [
  ["verdict", "Verdict"],
  ["title", "Place"],
  ["amount", "Bytes"],
  ["count", "Blocks"],
  ["rate", "Growth"],
];

/** Of two sides that were compared. */
const CHANGES: [Sort, string][] = [
  ["verdict", "Change"],
  ["title", "Place"],
  ["amount", "Bytes now"],
  ["count", "Blocks now"],
  ["change", "Difference"],
];

export class FindingsTable {
  readonly element: HTMLElement;
  private readonly body = h("tbody");
  private readonly head = h("tr");
  private readonly more = h("p");
  private readonly said = h("p", { class: "said", "aria-live": "polite" });
  private readonly rows: Row[];
  private shown: Row[] = [];
  private room = STEP;
  private sort: Sort = "rank";
  private down = true;
  private which: string;
  private wanted: Uint8Array | null = null;
  private text = "";
  private readonly opened = new Set<Row>();
  private readonly spanValues = new Map<Row, number>();

  constructor(
    private readonly page: Page,
    private readonly data: Data,
    private readonly answer: Answer,
    private readonly number: number,
  ) {
    this.rows = answer.results.map((result) => ({ result, site: result.site, tone: result.tone, quiet: result.quiet !== null || result.tone === "calm" }));
    const described = new Set(answer.results.map((each) => each.site));
    const { profile } = answer;
    if (profile) {
      const heavy: number[] = [];
      for (let site = 0; site < profile.nodes.length; site++) if (!described.has(site)) heavy.push(site);
      const live = profile.measures["live_bytes"];
      const all = profile.measures["alloc_bytes"] ?? live;
      if (live) heavy.sort((a, b) => live[b] - live[a] || all[b] - all[a]);
      for (const site of heavy) this.rows.push({ result: null, site, tone: "calm", quiet: true });
    }
    const loud = this.rows.filter((row) => !row.quiet).length;
    if (this.rows[0]?.tone === "alarm" && this.rows[0].result?.stacks.length) this.opened.add(this.rows[0]);
    this.which = loud ? "loud" : answer.results.length ? "found" : "all";
    this.element = h(
      "section",
      { id: "findings", "aria-labelledby": "findings-title" },
      h("h2", { id: "findings-title" }, TITLES[answer.command] ?? "Findings"),
      h("div", { class: "controls" }, select("Show", this.choices(loud), this.which, (value) => {
        this.which = value;
        this.room = STEP;
        this.refresh();
      })),
      this.said,
      h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "table of findings" }, h("table", { class: "findings" }, h("thead", {}, this.head), this.body)),
      this.more,
    );
    this.refresh();
  }

  /** Whether it tells what changed between two sides. */
  private get compared(): boolean {
    return this.answer.command === "diff";
  }

  private choices(loud: number): [string, string][] {
    const found: [string, string][] = [];
    if (loud) found.push(["loud", `${this.compared ? "what changed" : "leaks and what is open"} (${countText(loud)})`]);
    if (this.answer.results.length) found.push(["found", `all findings told in full (${countText(this.answer.results.length)})`]);
    if (this.answer.profile) found.push(["all", `all call stacks (${countText(this.rows.length)})`]);
    return found.length ? found : [["all", "nothing"]];
  }

  filter(text: string, wanted: Uint8Array | null): void {
    this.text = text.toLowerCase();
    this.wanted = wanted;
    this.room = STEP;
    this.refresh();
  }

  spanChanged(): void {
    this.spanValues.clear();
    if (this.page.span && this.answer.profile?.courseOf.length) {
      const grown = this.page.change(this.answer.profile, this.page.span);
      for (const row of this.rows) if (row.site !== null) this.spanValues.set(row, grown[row.site]);
      this.sort = "span";
      this.down = true;
    } else if (this.sort === "span") this.sort = "rank";
    this.refresh();
  }

  private matches(row: Row): boolean {
    if (this.which === "loud" && row.quiet) return false;
    if (this.which === "found" && !row.result) return false;
    if (!this.text) return true;
    if (this.wanted && row.site !== null && this.wanted[row.site]) return true;
    const result = row.result;
    if (!result) return false;
    return `${result.verdict} ${result.title} ${result.where} ${result.sentence} ${result.key}`.toLowerCase().includes(this.text);
  }

  private value(row: Row): number {
    const { profile } = this.answer;
    const of = (name: string): number => (profile && row.site !== null ? profile.measures[name]?.[row.site] ?? -1 : -1);
    if (this.sort === "amount") return row.result?.amount ?? of("live_bytes");
    if (this.sort === "change") return row.result?.change ?? 0;
    if (this.sort === "count") return row.result?.count ?? of("live_count");
    if (this.sort === "rate") return row.result?.rate ?? -Infinity;
    if (this.sort === "allocs") return of("allocs");
    return this.spanValues.get(row) ?? -Infinity;
  }

  private title(row: Row): [name: string, where: string] {
    if (row.result) return [row.result.title, row.result.where];
    const { profile } = this.answer;
    if (!profile || row.site === null) return ["", ""];
    const places = placesOf(profile, row.site);
    const place = places.find((each) => this.data.places.own(each)) ?? places[0];
    return place === undefined ? ["(no call stack)", ""] : [this.data.places.name(place), this.data.places.where(place)];
  }

  private order(rows: Row[]): Row[] {
    if (this.sort === "rank") return rows;
    const sign = this.down ? -1 : 1;
    if (this.sort === "title" || this.sort === "verdict") {
      const named = rows.map((row): [string, Row] => [this.sort === "title" ? this.title(row)[0] : this.verdict(row), row]);
      named.sort((a, b) => (a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : 0) * -sign);
      return named.map((each) => each[1]);
    }
    const valued = rows.map((row): [number, Row] => [this.value(row), row]);
    valued.sort((a, b) => (a[0] === b[0] ? 0 : a[0] < b[0] ? -sign : sign));
    return valued.map((each) => each[1]);
  }

  private verdict(row: Row): string {
    if (row.result) return row.result.quiet ? "known" : row.result.verdict;
    const { profile } = this.answer;
    return (profile && row.site !== null && profile.verdictNames[profile.verdicts[row.site]]) || "no finding";
  }

  refresh(): void {
    this.showHead();
    this.shown = this.order(this.rows.filter((row) => this.matches(row)));
    const left = this.answer.leftOut && !this.answer.profile ? ` ${plural(this.answer.leftOut, "more")} left out.` : "";
    this.said.textContent = `${plural(this.shown.length, "row")}${this.text ? ` of ${countText(this.rows.length)} match "${this.text}"` : ""}.${left}`;
    this.draw();
  }

  private showHead(): void {
    const columns = this.compared ? CHANGES : [...COLUMNS];
    if (this.answer.profile?.measures["allocs"]) columns.push(["allocs", "Allocations"]);
    if (this.page.span && this.spanValues.size) columns.push(["span", "In the span"]);
    replace(
      this.head,
      ...columns.map(([name, text]) =>
        h(
          "th",
          { scope: "col", class: name === "verdict" || name === "title" ? "" : "number", "aria-sort": this.sort === name ? (this.down ? "descending" : "ascending") : "none" },
          h("button", { type: "button", class: "link", onclick: () => this.sortBy(name) }, text + (this.sort === name ? (this.down ? " ▼" : " ▲") : "")),
        ),
      ),
    );
  }

  private sortBy(name: Sort): void {
    this.down = this.sort === name ? !this.down : name !== "title" && name !== "verdict";
    this.sort = name;
    this.refresh();
    // The button that was pressed was made anew.
    this.head.querySelector<HTMLButtonElement>('[aria-sort$="cending"] button')?.focus();
  }

  private draw(): void {
    const rows: HTMLElement[] = [];
    for (const row of this.shown.slice(0, this.room)) {
      rows.push(this.line(row));
      if (this.opened.has(row)) rows.push(this.open(row));
    }
    this.body.replaceChildren(...rows);
    const left = this.shown.length - this.room;
    replace(
      this.more,
      left > 0
        ? h("button", { type: "button", onclick: () => {
            this.room += STEP * 5;
            this.draw();
          } }, `show ${countText(Math.min(left, STEP * 5))} more of ${countText(left)}`)
        : null,
    );
  }

  private line(row: Row): HTMLElement {
    const { profile } = this.answer;
    const of = (name: string): number | null => (profile && row.site !== null ? profile.measures[name]?.[row.site] ?? null : null);
    const amount = row.result?.amount ?? of("live_bytes");
    const count = row.result ? row.result.count : of("live_count");
    const [name, where] = this.title(row);
    const is = this.opened.has(row);
    const button = h(
      "button",
      { type: "button", class: "link opener", "aria-expanded": String(is), onclick: () => this.toggle(row) },
      `${is ? "▾" : "▸"} ${name}`,
    );
    const cells = [
      h("td", {}, h("span", { class: `badge ${row.tone}` }, this.verdict(row))),
      h("td", { class: "place" }, button, where ? h("span", { class: "dim where" }, where) : null),
      h("td", { class: "number" }, amount === null ? row.result?.amountText ?? "" : bytesText(amount)),
      h("td", { class: "number" }, count === null ? "" : countText(count)),
      h("td", { class: "number" }, this.compared ? signedAmount(row.result?.change ?? 0, "bytes") : row.result?.rate ? rateText(row.result.rate) : ""),
    ];
    const allocs = of("allocs");
    if (profile?.measures["allocs"]) cells.push(h("td", { class: "number" }, allocs === null ? "" : countText(allocs)));
    if (this.page.span && this.spanValues.size) {
      const change = this.spanValues.get(row);
      cells.push(h("td", { class: "number" }, change === undefined || Number.isNaN(change) ? "" : signedAmount(change, "bytes")));
    }
    return h("tr", { class: is ? "opened" : "" }, ...cells);
  }

  private open(row: Row): HTMLElement {
    return h("tr", { class: "inside" }, h("td", { colspan: this.head.children.length }, detail(this.page, this.data, this.answer, this.number, row.result, row.site)));
  }

  private toggle(row: Row): void {
    if (this.opened.has(row)) this.opened.delete(row);
    else {
      this.opened.add(row);
      const key = row.result ? row.result.key : `site-${this.answer.profile?.sites[row.site ?? 0]}`;
      history.replaceState(null, "", this.page.link(this.number, key));
    }
    const at = this.shown.indexOf(row);
    this.draw();
    this.body.querySelectorAll<HTMLButtonElement>("button.opener")[at]?.focus();
  }

  /** Open the row with this key, and return whether there is one. */
  show(key: string): boolean {
    const row = this.rows.find((each) => (each.result ? each.result.key === key : `site-${this.answer.profile?.sites[each.site ?? 0]}` === key));
    if (!row) return false;
    if (!this.matches(row)) {
      this.page.clearFilter();
      this.which = row.result ? (row.quiet ? "found" : this.which) : "all";
      this.element.querySelector("select")!.value = this.which;
    }
    this.opened.add(row);
    this.refresh();
    const at = this.shown.indexOf(row);
    if (at >= this.room) {
      this.room = at + 1;
      this.draw();
    }
    const button = this.body.querySelectorAll<HTMLButtonElement>("button.opener")[at];
    button?.focus({ preventScroll: true });
    button?.scrollIntoView({ block: "start" });
    return true;
  }
}
