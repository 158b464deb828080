# SPDX-License-Identifier: Apache-2.0
"""The live screen of `leakscope watch`: what grows most, with its course, sorted as one likes."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual.binding import Binding
from textual.widgets import DataTable, Footer, Static

from leakscope.judge.growing import fast_growers, growth_now, growth_words
from leakscope.model.series import TrendVerdict
from leakscope.report.gauges import gauge_name, home_text, spark, subject_name
from leakscope.report.text import cells, clip_right, printable
from leakscope.tui._terminal import LiveApp, is_gone, theme_of
from leakscope.words import amount_text, bytes_text, duration_text, signed_amount, signed_rate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from textual.binding import BindingType
    from textual.widget import Widget

    from leakscope.model.series import Standing, Trend
    from leakscope.workflow.watching import Watch

__all__ = ["LiveScreen"]

_ROWS = 200
_ASK_S = 0.1
_LEAST_RATE = 1024.0  # bytes a second
# What 80 columns show comes first; the last two are for wider terminals.
_COLUMNS = ("verdict", "now", "rate", "gauge", "course", "grown")
_OTHERS = 41  # columns of a terminal that all but the gauge and the last two take, with margins
_NARROW, _WIDE = 20, 72  # of the gauge
_SORTS = ("rate", "grown", "now", "verdict", "gauge")
_COLOURS = {
    TrendVerdict.LEAK: "bold red",
    TrendVerdict.GROWING: "bold yellow",
    TrendVerdict.FILLING: "yellow",
}
_SHORT = {TrendVerdict.GROWING: "fast", TrendVerdict.NOT_ENOUGH_DATA: "..."}
_HELD = 6  # lines of what a process holds
_LOOKING = "Looking for the first time: rates come with the second look, a second later."
_NO_LEAK = "No gauge is called a leak so far. Press l to see all of them."
_NOTHING = "Nothing to show: what was asked for has ended, or may not be read."
_Key = tuple[str, str, str]


class LiveScreen(LiveApp):
    """Shows `watch` until `over` says that it is, or somebody presses q.

    Looks are made in a thread of their own; an error there ends the screen and is raised by
    `finish`.
    """

    CSS = """
    #head { height: 1; text-style: bold; }
    #detail { height: 3; border-top: solid $accent; }
    #detail.open { height: 13; max-height: 60%; }
    #empty { height: 1fr; padding: 1 2; display: none; }
    DataTable { height: 1fr; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        ("q", "quit", "End"),
        Binding("escape", "close", "Close", show=False),
        ("s", "sort", "Sort"),
        ("r", "reverse", "Reverse"),
        ("l", "leaks", "Leaks"),
        ("j", "judge", "Judge"),
        Binding("ctrl+c", "quit", show=False, priority=True),
    ]
    ENABLE_COMMAND_PALETTE = False

    def __init__(self, watch: Watch, over: Callable[[], bool]) -> None:
        super().__init__(ansi_color=True)  # the terminal's own colours, or with NO_COLOR none
        self.watching, self.over = watch, over
        self.failure: Exception | None = None
        self._stop = threading.Event()
        self._judge_now = threading.Event()
        self._fresh = threading.Event()
        self._done = threading.Event()
        # Kept here: the screen may be taken down while one of them is being filled.
        self._head = Static("", id="head")
        self._table: DataTable[Text] = DataTable(cursor_type="row", zebra_stripes=True)
        self._detail = Static("", id="detail")
        self._empty = Static(_LOOKING, id="empty")
        self._open = False
        self._standings: list[Standing] = []
        self._sorted_by = "rate"
        self._reversed = False
        self._leaks_only = False
        self._looker = threading.Thread(target=self._look_on, name="watch", daemon=True)

    def compose(self) -> Iterator[Widget]:
        """Lay out the screen."""
        yield self._head
        yield self._table
        yield self._empty
        yield self._detail
        yield Footer()

    def on_mount(self) -> None:
        """Begin to look."""
        self.theme = theme_of(self.available_themes, self.theme)
        table = self._table
        for name in _COLUMNS:
            table.add_column(name, key=name)
        self._show_empty(_LOOKING)
        table.focus()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, self.exit)
        # The screen asks the looking thread, never the other way round: neither waits at the end.
        self.set_interval(_ASK_S, self._ask)
        self._looker.start()

    def finish(self) -> None:
        """Wait for the last look; raise what ended the watch, if something did."""
        self._stop.set()
        if self._looker.is_alive():
            self._looker.join()
        if self.failure is not None:
            raise self.failure
        self.check_end()

    def action_sort(self) -> None:
        """Sort by the next column."""
        self._sort_by(_SORTS[(_SORTS.index(self._sorted_by) + 1) % len(_SORTS)])

    def action_reverse(self) -> None:
        """Turn the order round."""
        self._reversed = not self._reversed
        self._fill()

    def action_leaks(self) -> None:
        """Show leaks alone, or everything again."""
        self._leaks_only = not self._leaks_only
        self._fill()

    def action_judge(self) -> None:
        """Ask for verdicts at the next look."""
        self._judge_now.set()

    def on_data_table_header_selected(self, event: DataTable.HeaderSelected) -> None:
        """Sort by the column that was clicked; a second click turns the order round."""
        name = str(event.column_key.value)
        if name == self._sorted_by:
            self.action_reverse()
        elif name in _SORTS:
            self._sort_by(name)

    def on_data_table_row_highlighted(self, event: DataTable.RowHighlighted) -> None:
        """Say below the table how the chosen gauge grows and what the verdict on it is."""
        self._describe(event.row_key.value)

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        """Open the chosen row, or close it: everything known of it, and what its process holds."""
        self._open = not self._open
        self._detail.set_class(self._open, "open")
        self._describe(event.row_key.value)

    def action_close(self) -> None:
        """Close the row that is open."""
        self._open = False
        self._detail.set_class(False, "open")

    def _describe(self, row: str | None) -> None:
        key = _key(row)
        one = next((s for s in self._standings if _key_of(s) == key), None)
        trend = self._trends().get(key)
        lines = []
        if self._open and one is not None:
            where = home_text(one.subject)
            name = f"{subject_name(one.subject)}, {gauge_name(one.metric)}"
            lines.append(f"{name} ({where})" if where else name)
        series = None if one is None else self.watching.collection.course(one.subject, one.metric)
        growth = None if series is None else growth_now(series)
        if trend is not None and trend.verdict is not TrendVerdict.NOT_ENOUGH_DATA:
            lines.append(f"{trend.verdict}: {trend.sentence}")
        elif growth is not None:
            lines.append(f"not judged yet: {growth_words(growth)}")
        else:
            lines.append("not judged yet")
        pid = None if one is None else one.subject.pid
        more = "" if self._open else "     (Enter: more)"
        if trend is not None and trend.next_step:
            lines.append(f"Next: {trend.next_step}{more}")
        elif pid is not None:
            lines.append(f"Next: leakscope scan {pid}{more}")
        if self._open and pid is not None:
            lines += _holds(pid)
        if not self._open:  # two lines: what it does, and what to run; Enter tells the rest
            lines = [clip_right(line, max(8, self.size.width - 2), "…") for line in lines]
        self._detail.update(Text(_lines(lines)))

    def _show_empty(self, text: str | None) -> None:
        """Say why there is no row, in place of the table."""
        self._empty.update(text or "")
        self._empty.display = text is not None
        self._table.display = text is None

    def _sort_by(self, name: str) -> None:
        self._sorted_by, self._reversed = name, False
        self._fill()

    def _look_on(self) -> None:
        due = time.monotonic()
        try:
            while not self._stop.is_set():
                self.watching.look()
                if self._judge_now.is_set():
                    self._judge_now.clear()
                    self.watching.judge()
                else:
                    self.watching.judge_when_due()
                if self._stop.is_set():
                    return
                self._standings = self.watching.collection.standings()
                self._fresh.set()
                if self.over():
                    break
                due = max(due + self.watching.pause_s, time.monotonic())
                self._stop.wait(due - time.monotonic())
        except Exception as error:  # noqa: BLE001 (raised again by finish, in the main thread)
            self.failure = error
        self._done.set()

    def _ask(self) -> None:
        if is_gone():
            self.exit()
            return
        if self._done.is_set():
            self.exit()
        elif self._fresh.is_set() and self._table.is_attached:
            self._fresh.clear()
            self._fill()

    def _trends(self) -> dict[_Key, Trend]:
        judgement = self.watching.judgement
        found = () if judgement is None else judgement.trends
        return {(t.series.subject.kind, t.series.subject.key, t.series.metric): t for t in found}

    def _fill(self) -> None:
        """Put the table together again, the cursor staying on its gauge."""
        watching, trends = self.watching, self._trends()
        passed = duration_text(round(watching.watched_s) * 1_000_000_000)
        leaks = sum(t.verdict is TrendVerdict.LEAK for t in trends.values())
        fast = len(fast_growers(trends.values()))
        said = f"{leaks} leak, {fast} grow fast" if trends else "no verdicts yet"
        used = next((s for s in self._standings if s.metric == "used"), None)
        memory = "" if used is None else f"{amount_text(used.last, used.unit)} in use  "
        cost = f"look {watching.look_s * 1000:.0f} ms, {watching.core_share * 100:.1f} % of a core"
        if watching.store_error is not None:
            said += "  recording stopped"
        head = f" {passed}  {memory}{watching.processes} processes  {said}  {cost}"
        self._head.update(Text(head, no_wrap=True))
        table = self._table
        chosen = None
        if table.row_count and table.cursor_row < table.row_count:
            chosen = table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value
        table.clear()
        ordered = self._ordered(trends)
        nothing = _NO_LEAK if self._leaks_only and self._standings else _NOTHING
        self._show_empty(None if ordered else nothing)
        if not ordered:
            self._detail.update("")
        for one in ordered[:_ROWS]:
            key = (one.subject.kind, one.subject.key, one.metric)
            table.add_row(*self._cells(one, trends.get(key)), key="\n".join(key))
            if chosen == "\n".join(key):
                table.move_cursor(row=table.row_count - 1)

    def _ordered(self, trends: dict[_Key, Trend]) -> list[Standing]:
        def trend(one: Standing) -> Trend | None:
            return trends.get((one.subject.kind, one.subject.key, one.metric))

        def rank(one: Standing) -> tuple[object, ...]:
            found = trend(one)
            leaks = found is not None and found.verdict is TrendVerdict.LEAK
            # Sums follow what they are made of.
            sums = one.subject.kind in {"system", "cgroup"} or one.metric == "virtual"
            counts = one.unit != "bytes", sums
            if self._sorted_by == "gauge":
                return (subject_name(one.subject), one.metric)
            if self._sorted_by == "now":
                return (counts, -one.last)
            rate = (found.rate or 0.0) if found is not None else 0.0
            if self._sorted_by == "rate":
                return (counts, -one.rate, -one.last)
            if self._sorted_by == "verdict":
                return (not leaks, str(found.verdict) if found else "~", -rate)
            return (counts, one.first - one.last, -one.last)

        shown = self._standings
        if self._leaks_only:
            shown = [
                one
                for one in shown
                if (found := trend(one)) is not None and found.verdict is TrendVerdict.LEAK
            ]
        return sorted(shown, key=rank, reverse=self._reversed)

    def _cells(self, one: Standing, trend: Trend | None) -> list[Text]:
        series = self.watching.collection.course(one.subject, one.metric)
        verdict = "" if trend is None else _SHORT.get(trend.verdict, str(trend.verdict))
        style = _COLOURS.get(trend.verdict, "") if trend is not None else ""
        moves = abs(one.rate) >= (_LEAST_RATE if one.unit == "bytes" else 0.01)
        what = f", {gauge_name(one.metric)}"
        room = min(_WIDE, max(_NARROW, self.size.width - _OTHERS))
        who, pid = subject_name(one.subject), one.subject.pid
        end = "" if pid is None else f" (pid {pid})"  # which is what one copies
        left = max(4, room - cells(what) - len(end))
        who = clip_right(who.removesuffix(end), left, "…") + end
        return [
            Text(verdict, style=style),
            Text(amount_text(one.last, one.unit), justify="right"),
            Text(signed_rate(one.rate, one.unit) if moves else "", justify="right"),
            Text(f"{who}{what}"),
            Text("" if series is None else spark(series, 12)),
            Text(signed_amount(one.last - one.first, one.unit), justify="right"),
        ]


def _holds(pid: int) -> list[str]:
    """Return what a process holds now, in a few lines."""
    from leakscope.observe.process import account_of

    account = account_of(pid)
    if account is None:
        return ["It has ended."]
    sizes = sorted(account.lines, key=lambda line: -line[1])[:_HELD]
    lines = [f"{bytes_text(size):>9}  {what}" for what, size, _ in sizes if size]
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in (account.descriptors or ())[:4])
    threads = sum(count for _, count in account.threads)
    return [*lines, f"{threads:,} threads; descriptors: {kinds or 'not readable'}"]


def _lines(lines: list[str]) -> str:
    """Return the lines as text that moves no cursor."""
    return "\n".join(printable(line) for line in lines)


def _key_of(one: Standing) -> _Key:
    return one.subject.kind, one.subject.key, one.metric


def _key(text: str | None) -> _Key:
    kind, key, metric = ((text or "") + "\n\n").split("\n")[:3]
    return kind, key, metric
