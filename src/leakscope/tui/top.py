# SPDX-License-Identifier: Apache-2.0
"""The live screen of a traced process: what it holds, by allocation site, while it runs."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.message import Message
from textual.widgets import Footer, Input, Static

from leakscope.errors import LeakscopeError
from leakscope.report.text import cells, printable
from leakscope.tui import _top_text as texts
from leakscope.tui._terminal import LiveApp, is_gone, theme_of
from leakscope.words import duration_text, plural
from leakscope.workflow import top_actions
from leakscope.workflow.top_looks import FEW, MANY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from textual import events
    from textual.binding import BindingType
    from textual.widget import Widget

    from leakscope.model.findings import Findings
    from leakscope.model.recordings import Recording
    from leakscope.workflow.top_looks import Looks, TopLook

__all__ = ["TopScreen"]

_ASK_S = 0.2
_MARGIN = 6  # columns that a panel with a scroll bar does not have for its text
_LAST_LOOK_S = 1.0  # names of ten thousand sites take many, and q means now
_SORTS = ("leaks first", "held", "rate")
_TALL = 40  # lines of a terminal that has room for a larger chart
_STILL = "Nothing moves here: this needs a process that is recorded now."
_BUSY = "Wait: something is being done already."
_LOOKING = "Looking for the first time; names of functions are looked up once."
_NOTHING = "Nothing is held."
_NO_MATCH = "No site matches. Press Esc to show all of them."


class _Fixed(Static):
    """Text in a place of fixed size: drawn when it changed, and no reason to lay out the screen."""

    def __init__(self, name: str, text: str = "") -> None:
        super().__init__("", id=name)
        self._shown = Text(text, no_wrap=True)

    def show_text(self, text: Text) -> None:
        """Show another text."""
        if text != self._shown:
            self._shown = text
            self.refresh()

    def render(self) -> Text:
        """What is drawn."""
        return self._shown


def _height(text: str, width: int) -> int:
    """How many lines a text takes where none is wider than `width`; 0: one is."""
    lines = text.split("\n")
    return 0 if any(cells(line) > width for line in lines) else len(lines)


class _Sites(_Fixed, can_focus=True):
    """The table: only the lines on the screen are made, however many sites there are."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", show=False),
        Binding("down,j", "move(1)", show=False),
        Binding("pageup", "move_page(-1)", show=False),
        Binding("pagedown", "move_page(1)", show=False),
        Binding("home", "move(-1000000)", show=False),
        Binding("end", "move(1000000)", show=False),
    ]

    class Moved(Message):
        """Another line was chosen."""

    def __init__(self, make: Callable[[int, int, bool], Text]) -> None:
        super().__init__("sites")
        self._make = make
        self.rows = self.cursor = self.first = 0

    def show(self, rows: int, cursor: int) -> None:
        """Show so many rows, the cursor on one of them."""
        self.rows, self.cursor = rows, min(max(cursor, 0), max(rows - 1, 0))
        room = max(self.size.height, 1)
        self.first = min(self.first, max(rows - room, 0))
        self.first = min(max(self.first, self.cursor - room + 1), self.cursor)
        lines = [
            self._make(n, self.size.width, n == self.cursor)
            for n in range(self.first, min(self.first + room, rows))
        ]
        self.show_text(Text("\n").join(lines))

    def action_move(self, by: int) -> None:
        """Choose another line."""
        self.show(self.rows, self.cursor + by)
        self.post_message(self.Moved())

    def action_move_page(self, by: int) -> None:
        """Choose a line a screen further."""
        self.action_move(by * max(self.size.height - 1, 1))

    def on_click(self, event: events.Click) -> None:
        """Choose the line that was clicked."""
        if self.first + event.y < self.rows:
            self.action_move(self.first + event.y - self.cursor)

    def on_mouse_scroll_up(self) -> None:
        """Go up."""
        self.action_move(-1)

    def on_mouse_scroll_down(self) -> None:
        """Go down."""
        self.action_move(1)

    def on_resize(self) -> None:
        """Make the lines anew for another size."""
        self.show(self.rows, self.cursor)


class TopScreen(LiveApp):
    """Shows `looks` until somebody presses q; a program that ends leaves its last state.

    `judge_all` says what a scanned recording shows. Looks and actions are made in threads; what
    a first look raises ends the screen, and `finish` raises it again.
    """

    CSS = """
    #head, #headline, #titles, #status { height: 1; }
    #chart { height: 3; }
    #sites { height: 1fr; min-height: 2; }
    #panel { height: 1fr; border-top: solid $accent; }
    #panel.open { height: 4fr; }
    #filter { height: 1; border: none; padding: 0 1; display: none; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        ("q", "quit", "End"),
        ("s", "scan", "Scan"),
        ("h", "holders", "Held by"),
        ("d", "dump", "Dump"),
        ("p", "pause", "Pause"),
        # First of all: what is typed right after it is text, and no key that does something.
        Binding("slash", "filter", "Filter", priority=True),
        ("o", "order", "Order"),
        # Likewise: what is typed right after it is a key again.
        Binding("enter", "open", "Open", priority=True),
        Binding("r", "look", "Look", show=False),
        Binding("escape", "close", show=False),
        Binding("ctrl+c", "quit", show=False, priority=True),
    ]
    ENABLE_COMMAND_PALETTE = False

    def __init__(
        self,
        looks: Looks,
        judge_all: Callable[[Recording], Findings],
        *,
        unicode: bool = True,
    ) -> None:
        super().__init__(ansi_color=True)  # the terminal's own colours, or with NO_COLOR none
        self.looks, self.unicode = looks, unicode
        self.failure: Exception | None = None
        self.received: int | None = None  # the signal that ended it
        self._judge_all = judge_all
        self._stop, self._fresh, self._wanted = (threading.Event() for _ in range(3))
        self._head = _Fixed("head")
        self._headline = _Fixed("headline", _LOOKING)
        self._chart = _Fixed("chart")
        self._titles = _Fixed("titles")
        self._sites = _Sites(self._line)
        self._text = Static("", id="text", markup=False)
        self._panel = VerticalScroll(self._text, id="panel")
        self._panel.can_focus = False
        self._filter = Input(placeholder="a function, file or verdict", id="filter")
        self._status = _Fixed("status")
        self._described = ""
        self._rows: list[texts.Shown] = []
        self._open = self._told = False  # the panel is large; it shows what an action found
        self._said = ""
        self._order = self._tall = 0
        self._wanted_text = ""
        self._lost: dict[int, int] = {}  # bytes that the last scan found lost, by site
        self._scanned_ns = 0
        self._scanned_path: Path | None = None
        self._looker = threading.Thread(target=self._look_on, name="top", daemon=True)
        self._worker: threading.Thread | None = None
        self._results: list[Callable[[], None]] = []  # of a worker, for this thread to show

    def compose(self) -> Iterator[Widget]:
        """Lay out the screen."""
        yield self._head
        yield self._headline
        yield self._chart
        yield self._titles
        yield self._sites
        yield self._panel
        yield self._filter
        yield self._status
        yield Footer()

    def on_mount(self) -> None:
        """Begin to look."""
        self.theme = theme_of(self.available_themes, self.theme)
        self._sites.focus()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, self._leave, number)
        self.set_interval(_ASK_S, self._ask)
        self._looker.start()

    def _leave(self, number: int) -> None:
        self.received = number
        self.exit()

    @property
    def is_looking(self) -> bool:
        """Whether a look is still being made: nobody waits long for one after the end."""
        return self._looker.is_alive()

    def finish(self) -> None:
        """Wait for what was begun, and a moment for the last look; raise what ended the screen."""
        self._stop.set()
        self._wanted.set()
        worker = self._worker
        if worker is not None and worker.is_alive():
            top_actions.cancel(True)  # it lets the process go on before it ends
            try:
                worker.join()
            finally:
                top_actions.cancel(False)
        if self._looker.is_alive():
            self._looker.join(_LAST_LOOK_S)
        if self.failure is not None:
            raise self.failure
        self.check_end()

    # -- keys -----------------------------------------------------------------

    def action_order(self) -> None:
        """Sort by something else."""
        self._order = (self._order + 1) % len(_SORTS)
        self._say(f"sorted by: {_SORTS[self._order]}")
        self._fill()

    def action_look(self) -> None:
        """Look now."""
        self._wanted.set()

    def action_open(self) -> None:
        """Make the panel large or small; in the filter, keep it and give the keys back."""
        if self.focused is self._filter:  # its has_focus comes later
            self._hide_filter()
            return
        self._told = False
        self._set_open(not self._open)
        self._describe()

    def action_close(self) -> None:
        """Go back: from what an action found, from a large panel, from a filter."""
        if self._filter.display:
            self._hide_filter()
        elif self._told or self._open:
            self._told = False
            self._set_open(False)
            self._said = ""
            self._describe()
            self._show_status()
        elif self._wanted_text:
            self._seek("")

    def action_filter(self) -> None:
        """Ask what is sought."""
        if self.focused is self._filter:  # its has_focus comes later
            self._filter.insert_text_at_cursor("/")
            return
        self._filter.display = True
        self._filter.value = self._wanted_text
        self.screen.set_focus(self._filter)

    def on_input_changed(self, event: Input.Changed) -> None:
        """Show what matches so far."""
        self._seek(event.value)

    def on__sites_moved(self) -> None:
        """Tell of the site that was chosen; the text of an action stays until Esc."""
        if not self._told:
            self._describe()

    def action_scan(self) -> None:
        """Search the memory of the process for pointers, now."""

        def work() -> Callable[[], None]:
            pid, path = self._process()
            recording = top_actions.scan(pid, path)
            findings = self._judge_all(recording)
            return lambda: self._scanned(recording, findings, path)

        self._do("scanning: the process stands still for 0.1 s at most", work)

    def action_holders(self) -> None:
        """Tell what holds the blocks of the chosen site."""
        shown = self._chosen()
        if shown is None or self.looks.last is None:
            return
        finding, site = shown.finding, shown.site
        sites = {f.site: f for f in self.looks.last.findings.findings if f.site is not None}

        def work() -> Callable[[], None]:
            pid, path = self._process()
            _, holdings, examined = top_actions.held_by(pid, path, site)
            return lambda: self._tell(texts.held(finding, holdings, examined, sites))

        self._do("looking who holds it: the process stands still for 0.1 s at most", work)

    def action_dump(self) -> None:
        """Write what is recorded so far to a file."""

        def work() -> Callable[[], None]:
            written = top_actions.dump(self._process()[0])
            return lambda: self._say(f"written: {written}")

        self._do("writing a recording", work)

    def action_pause(self) -> None:
        """Stop recording new allocations, or go on."""

        def work() -> Callable[[], None]:
            paused = top_actions.switch(self._process()[0])
            self._wanted.set()
            return lambda: self._say(
                "recording is paused: new allocations are not seen; p goes on"
                if paused
                else "recording goes on"
            )

        self._do("asking the agent", work)

    # -- threads --------------------------------------------------------------

    def _process(self) -> tuple[int, Path]:
        """The process that is looked at, and its recording."""
        looks = self.looks
        if looks.pid is None or looks.path is None or looks.still or not looks.alive:
            raise LeakscopeError(_STILL)
        return looks.pid, looks.path

    def _do(self, what: str, work: Callable[[], Callable[[], None]]) -> None:
        if self._worker is not None and self._worker.is_alive():
            self._say(_BUSY)
            return
        if self.looks.still or self.looks.last is None:
            self._say(_STILL)
            return

        def run() -> None:
            try:
                result = work()
            except (LeakscopeError, OSError) as error:
                hint = getattr(error, "hint", None)
                text = f"{error}" + (f" {hint}" if hint else "")
                self._results.append(lambda: self._say(text))
            except Exception as error:  # noqa: BLE001 (the screen goes on, and says so)
                bug = f"a bug in leakscope: {type(error).__name__}: {error}"
                self._results.append(lambda: self._say(bug))
            else:
                self._results.append(result)

        self._say(f"{what} …" if self.unicode else f"{what} ...")
        self._worker = threading.Thread(target=run, name="top-action", daemon=True)
        self._worker.start()

    def _look_on(self) -> None:
        looks, wanted = self.looks, True
        try:
            while not self._stop.is_set():
                looks.look(judge=wanted)
                self._fresh.set()
                begun = time.monotonic()
                left = begun + looks.pause_s - time.monotonic()
                self._wanted.wait(None if looks.still else max(0.0, left))
                wanted = self._wanted.is_set()
                self._wanted.clear()
        except Exception as error:  # noqa: BLE001 (raised again by finish, in the main thread)
            self.failure = error

    def _ask(self) -> None:
        if is_gone():
            self._leave(signal.SIGHUP)
            return
        if self.failure is not None:
            self.exit()
            return
        while self._results:
            self._results.pop(0)()
        if self._fresh.is_set() and self._sites.is_attached:
            self._fresh.clear()
            self._fill()

    # -- what is shown --------------------------------------------------------

    def _fill(self) -> None:
        """Put all of it together again, the cursor staying on its site."""
        look = self.looks.last
        if look is None:
            return
        width = self.size.width
        chosen = self._chosen()
        self._rows = self._ordered(look)
        self._head.show_text(texts.head(look, self.looks.label, width))
        self._headline.show_text(texts.headline(look, width, unicode=self.unicode))
        tall = self.size.height >= _TALL
        height = 8 if tall else 3
        if height != self._tall:
            self._tall = self._chart.styles.height = height
        self._chart.show_text(texts.chart(look, width, height, unicode=self.unicode))
        self._titles.show_text(texts.titles(width))
        at = next((n for n, row in enumerate(self._rows) if chosen and row.site == chosen.site), 0)
        self._sites.show(len(self._rows), at)
        if not self._rows:
            self._sites.show_text(Text(f" {_NO_MATCH if self._wanted_text else _NOTHING}"))
        if not self._told:
            self._describe()
        self._show_status()

    def _ordered(self, look: TopLook) -> list[texts.Shown]:
        # Another program in the same process has other sites of the same numbers.
        lost = self._lost if self._scanned_path == self.looks.path else {}
        rows = [
            texts.Shown(finding, look, lost.get(finding.site or 0, 0))
            for finding in look.findings.findings
        ]
        if wanted := self._wanted_text.lower():
            rows = [row for row in rows if row.matches(wanted)]
        if self._order == 0:
            rows.sort(key=lambda row: (not row.is_leak, -row.held))
        elif self._order == 1:
            rows.sort(key=lambda row: -row.held)
        else:
            rows.sort(key=lambda row: (-(row.rate or 0.0), -row.held))
        return rows

    def _line(self, number: int, width: int, chosen: bool) -> Text:
        return texts.row(self._rows[number], width, chosen=chosen, unicode=self.unicode)

    def _chosen(self) -> texts.Shown | None:
        at = self._sites.cursor
        return self._rows[at] if at < len(self._rows) else None

    def _describe(self) -> None:
        shown, look = self._chosen(), self.looks.last
        if shown is None or look is None:
            self._show_text("")
            return
        scanned = ""
        if self._scanned_ns and self._scanned_path == self.looks.path:
            ago = duration_text(max(look.at_ns - self._scanned_ns, 0))
            what = "lost blocks" if shown.lost else "no lost block"
            scanned = f"the scan {ago} ago found {what} here"
        self._show_text("\n".join(texts.detail(shown, look, self.size.width, scanned)))

    def _scanned(self, recording: Recording, findings: Findings, path: Path) -> None:
        self._lost = {
            each.site: each.lost_bytes
            for each in findings.findings
            if each.site is not None and each.lost_bytes
        }
        self._scanned_ns, self._scanned_path = recording.duration_ns, path
        self._fill()
        self._tell(texts.found(findings, self.size.width - 4, unicode=self.unicode))

    def _tell(self, lines: list[str]) -> None:
        """Show what an action found, in the large panel, until Esc."""
        self._told = True
        self._set_open(True)
        self._show_text("\n".join(printable(line) for line in lines))
        self._panel.scroll_home(animate=False)
        self._say("Esc goes back to the sites, the arrows scroll")

    def _show_text(self, text: str) -> None:
        # Another text may need more lines, and the screen is laid out for it: most of what a look
        # costs, so only where it does.
        if text != self._described:
            width = self.size.width - _MARGIN
            same = _height(text, width) == _height(self._described, width) != 0
            self._described = text
            self._text.update(Text(text), layout=not same)

    def _set_open(self, large: bool) -> None:
        self._open = large
        self._panel.set_class(large, "open")
        self._panel.can_focus = large
        (self._panel if large else self._sites).focus()

    def _seek(self, text: str) -> None:
        self._wanted_text = text
        most = MANY if text else FEW
        if self.looks.most != most:
            self.looks.most = most
            self._wanted.set()
        self._fill()

    def _hide_filter(self) -> None:
        self._filter.display = False
        self.screen.set_focus(self._panel if self._open else self._sites)

    def _say(self, text: str) -> None:
        self._said = printable(text)
        self._show_status()

    def _show_status(self) -> None:
        looks = self.looks
        look = looks.last
        parts = []
        if self._said:
            parts.append(self._said)
        if look is not None:
            total = max(len(look.recording.sites) - 1, 0)
            parts.append(f"{len(self._rows):,} of {plural(total, 'site')}")
        if self._wanted_text:
            searching = "" if looks.searched else " (looking up names of all sites)"
            parts.append(f"filter: {printable(self._wanted_text)}{searching}")
        if looks.still:
            parts.append("a still picture")
        elif looks.made > 1:
            pace = f"a look every {looks.pause_s:.0f} s"
            if looks.judge_s > looks.pause_s:
                pace += f", a verdict every {looks.judge_s:.0f} s"
            parts.append(f"{pace}, {looks.core_share * 100:.1f} % of a core")
        self._status.show_text(Text(f" {' | '.join(parts)}", no_wrap=True))
