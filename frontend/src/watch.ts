// SPDX-License-Identifier: Apache-2.0
// The gauges of a watch as a grid of courses, each with its fitted line and the limit it runs into.

import type { Answer, Course, Data } from "./data";
import { h, replace, select, stepLine } from "./dom";
import { gaugePlot } from "./plots";
import { countText, plural } from "./words";

const STEP = 60;

export class Courses {
  readonly element: HTMLElement;
  private readonly grid = h("div", { class: "grid" });
  private readonly said = h("p", { class: "said", "aria-live": "polite" });
  private readonly more = h("p");
  private text = "";
  private verdict = "";
  private room = STEP;
  private wide = false;

  constructor(
    private readonly data: Data,
    private readonly answer: Answer,
  ) {
    const verdicts = [...new Set(answer.courses.map((each) => each.verdict))].sort();
    this.element = h(
      "section",
      { id: "courses", "aria-labelledby": "courses-title" },
      h("h2", { id: "courses-title" }, "Gauges over time"),
      h(
        "div",
        { class: "controls" },
        select("Verdict", [["", `all (${countText(answer.courses.length)})`], ...verdicts.map((each): [string, string] => [each, each])], "", (value) => {
          this.verdict = value;
          this.room = STEP;
          this.draw();
        }),
        select("Size", [["", "small, side by side"], ["wide", "wide"]], "", (value) => {
          this.wide = value === "wide";
          this.draw();
        }),
      ),
      this.said,
      this.grid,
      this.more,
    );
    this.draw();
  }

  filter(text: string): void {
    this.text = text.toLowerCase();
    this.room = STEP;
    this.draw();
  }

  private matches(course: Course): boolean {
    if (this.verdict && course.verdict !== this.verdict) return false;
    return !this.text || `${course.subject} ${course.name} ${course.verdict} ${course.sentence}`.toLowerCase().includes(this.text);
  }

  private draw(): void {
    const found = this.answer.courses.filter((each) => this.matches(each));
    this.said.textContent = `${plural(found.length, "gauge")} of ${countText(this.answer.courses.length + this.answer.leftOut)}.`;
    this.grid.className = this.wide ? "grid wide" : "grid";
    this.grid.replaceChildren(...found.slice(0, this.room).map((each) => this.card(each)));
    const left = found.length - this.room;
    replace(this.more, left > 0 ? h("button", { type: "button", onclick: () => {
      this.room += STEP;
      this.draw();
    } }, `show ${countText(Math.min(STEP, left))} more of ${countText(left)}`) : null);
  }

  private card(course: Course): HTMLElement {
    const plot = this.wide ? gaugePlot(this.data, course, 1000, 220) : gaugePlot(this.data, course);
    return h(
      "article",
      { class: "card" },
      h("h3", {}, h("span", { class: `badge ${course.tone}` }, course.verdict), " ", course.subject),
      h("p", { class: "dim" }, course.name),
      plot,
      h("p", {}, course.sentence),
      course.limitText ? h("p", { class: "limit-text" }, "Limit: ", course.limitText) : null,
      course.step ? stepLine(course.step) : null,
      course.facts.length ? h("details", {}, h("summary", {}, "what it holds"), h("pre", { tabindex: "0" }, course.facts.join("\n"))) : null,
    );
  }
}
