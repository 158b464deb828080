# SPDX-License-Identifier: Apache-2.0
"""Real servers with clients that check every answer: what a server under leakscope is compared by.

Each server runs in a folder of its own on a free port; `wrap` is the command it is started through,
nothing for the plain run. What is observed of it (descriptors, threads, memory, how it ended, what
it printed) is told in a form in which two runs can be compared.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

PATIENCE_S = 60.0


class WrongAnswerError(Exception):
    """A server answered what it would not have answered alone."""


class Server(ABC):
    """One server process tree. `start` returns when it answers; `stop` returns its output."""

    name = ""
    threads = 2
    stop_signal = signal.SIGTERM

    def __init__(self, folder: Path, wrap: Sequence[str], env: dict[str, str]) -> None:
        self.folder = folder
        self.wrap = list(wrap)
        self.env = env
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.pid = 0

    @abstractmethod
    def command(self) -> list[str]:
        """Return the server's own command line."""

    @abstractmethod
    def pid_file(self) -> Path:
        """Where the server writes its process number."""

    @abstractmethod
    @contextlib.contextmanager
    def client(self, seed: int) -> Iterator[Callable[[], None]]:
        """Yield a function that makes one request and checks the answer."""

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "output").open("wb") as output:
            self.process = subprocess.Popen(
                [*self.wrap, *self.command()],
                cwd=self.folder,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            if self.process.poll() is not None:
                break
            try:
                self.pid = int(self.pid_file().read_text().split()[0])
                with self.client(0) as ask:
                    ask()
            except (OSError, ValueError, IndexError, http.client.HTTPException, psycopg.Error):
                time.sleep(0.05)
            else:
                return
        raise WrongAnswerError(f"{self.name} did not start: {self.output()}")

    def stop(self) -> int:
        """Ask the server to end and return the status of the command that was started."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, self.stop_signal)
        try:
            return self.process.wait(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            raise

    def output(self) -> str:
        return (self.folder / "output").read_text(encoding="utf-8", errors="replace")

    def tree(self) -> list[int]:
        """Return the server's pids, its children included."""
        found, new = [], [self.pid]
        while new:
            pid = new.pop()
            found.append(pid)
            for task in Path(f"/proc/{pid}/task").glob("*/children"):
                with contextlib.suppress(OSError):
                    new += [int(word) for word in task.read_text().split()]
        return found

    def descriptors(self) -> Counter[str]:
        """Return what the processes of the server hold open, without numbers that differ by run."""
        kinds: Counter[str] = Counter()
        for pid in self.tree():
            for link in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    target = str(link.readlink()).replace(str(self.folder), "FOLDER")
                    kinds[re.sub(r"\d+", "N", target)] += 1
        return kinds

    def anonymous_bytes(self) -> int:
        """Return resident anonymous memory of the server's processes."""
        total = 0
        for pid in self.tree():
            with contextlib.suppress(OSError):
                text = Path(f"/proc/{pid}/status").read_text()
                total += int(re.search(r"RssAnon:\s+(\d+)", text)[1]) * 1024
        return total

    def load(self, seconds: float, seed: int) -> list[float]:
        """Let clients ask and check for a while; return the latencies of all requests in seconds.

        Raises what a client met: a wrong answer, a lost connection.
        """
        taken: list[float] = []
        troubles: list[BaseException] = []
        end = time.monotonic() + seconds

        def work(number: int) -> None:
            mine = []
            try:
                with self.client(seed * 100 + number) as ask:
                    while (began := time.monotonic()) < end:
                        ask()
                        mine.append(time.monotonic() - began)
            except BaseException as trouble:  # noqa: BLE001 (raised below, in the caller's thread)
                troubles.append(trouble)
            taken.extend(mine)

        workers = [threading.Thread(target=work, args=(n,)) for n in range(self.threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        if troubles:
            raise WrongAnswerError(f"{self.name}: {troubles[0]!r}") from troubles[0]
        return taken


class Redis(Server):
    name = "redis"

    def command(self) -> list[str]:
        options = {"port": self.port, "save": "", "appendonly": "no", "daemonize": "no"}
        options |= {"pidfile": self.pid_file(), "dir": self.folder, "loglevel": "warning"}
        words = ["redis-server"]
        for key, value in options.items():
            words += [f"--{key}", str(value)]
        return words

    def pid_file(self) -> Path:
        return self.folder / "redis.pid"

    @contextlib.contextmanager
    def client(self, seed: int) -> Iterator[Callable[[], None]]:
        chance = random.Random(seed)
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S) as link:
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            stream = link.makefile("rb")

            def call(*words: bytes) -> bytes:
                parts = [b"*%d\r\n" % len(words)]
                parts += [b"$%d\r\n%s\r\n" % (len(word), word) for word in words]
                link.sendall(b"".join(parts))
                head = stream.readline()
                if not head:
                    raise WrongAnswerError("the connection ended")
                if head[:1] == b"$" and head[1:2] != b"-":
                    return stream.read(int(head[1:]) + 2)[:-2]
                return head.strip()

            def ask() -> None:
                key = b"k%d-%d" % (seed, chance.randrange(2000))
                value = key * chance.randrange(1, 60)
                expect(call(b"SET", key, value), b"+OK")
                expect(call(b"GET", key), value)

            yield ask


class Nginx(Server):
    name = "nginx"
    threads = 2

    def command(self) -> list[str]:
        folder = self.folder
        pages = folder / "pages"
        pages.mkdir(exist_ok=True)
        (folder / "logs").mkdir(exist_ok=True)
        for size in (100, 5_000, 200_000):
            (pages / f"{size}.txt").write_bytes(page(size))
        user = "user root;" if os.geteuid() == 0 else ""
        (folder / "nginx.conf").write_text(
            f"""{user} daemon off; worker_processes 2; pid {self.pid_file()}; error_log stderr warn;
events {{ worker_connections 128; }}
http {{ access_log off; gzip on; gzip_types text/plain; default_type text/plain; types {{}}
  client_body_temp_path {folder}/logs; proxy_temp_path {folder}/logs; fastcgi_temp_path {folder}/logs;
  uwsgi_temp_path {folder}/logs; scgi_temp_path {folder}/logs;
  server {{ listen 127.0.0.1:{self.port}; root {pages}; }} }}
"""
        )
        return ["/usr/sbin/nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")]

    def pid_file(self) -> Path:
        return self.folder / "nginx.pid"

    @contextlib.contextmanager
    def client(self, seed: int) -> Iterator[Callable[[], None]]:
        chance = random.Random(seed)
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)

        def ask() -> None:
            size = chance.choice((100, 5_000, 5_000, 200_000))
            headers = {"Connection": "close"} if chance.random() < 0.1 else {}
            link.request("GET", f"/{size}.txt", headers=headers)
            answer = link.getresponse()
            body = answer.read()
            expect(answer.status, 200)
            expect(hashlib.sha256(body).digest(), hashlib.sha256(page(size)).digest())

        with contextlib.closing(link):
            yield ask


class Postgres(Server):
    name = "postgres"
    stop_signal = signal.SIGINT  # "fast shutdown"

    def command(self) -> list[str]:
        programs = max(Path("/usr/lib/postgresql").glob("*/bin"))
        as_user: list[str] = []
        if os.geteuid() == 0:  # it refuses to run as root
            as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
            shutil.chown(self.folder, "postgres", "postgres")
            self.folder.chmod(0o700)
        data = self.folder / "data"
        subprocess.run(
            [*as_user, programs / "initdb", "-D", data, "-A", "trust", "-N", "-U", "tester"],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd="/",
        )
        options = {"listen_addresses": "127.0.0.1", "port": self.port, "fsync": "off"}
        options |= {"unix_socket_directories": str(self.folder), "log_min_messages": "warning"}
        words = [*as_user, str(programs / "postgres"), "-D", str(data)]
        for key, value in options.items():
            words += ["-c", f"{key}={value}"]
        return words

    def pid_file(self) -> Path:
        return self.folder / "data" / "postmaster.pid"

    @contextlib.contextmanager
    def client(self, seed: int) -> Iterator[Callable[[], None]]:
        chance = random.Random(seed)
        where = f"host=127.0.0.1 port={self.port} user=tester dbname=postgres connect_timeout=30"
        table = f"t{seed}"
        with psycopg.connect(where, autocommit=True) as link:
            link.execute(f"DROP TABLE IF EXISTS {table}")
            link.execute(f"CREATE TABLE {table} (k int PRIMARY KEY, v text)")

            def ask() -> None:
                key = chance.randrange(500)
                value = f"{key}." * chance.randrange(1, 100)
                link.execute(
                    f"INSERT INTO {table} VALUES (%s, %s) ON CONFLICT (k) DO UPDATE SET v = excluded.v",
                    (key, value),
                )
                row = link.execute(
                    f"SELECT v, (SELECT count(*) FROM generate_series(1, 50)) FROM {table} WHERE k = %s",
                    (key,),
                ).fetchone()
                expect(row, (value, 50))
                if chance.random() < 0.005:  # another backend: a fork of the postmaster
                    with psycopg.connect(where) as other:
                        expect(other.execute("SELECT 7").fetchone(), (7,))

            yield ask


SERVERS: dict[str, type[Server]] = {each.name: each for each in (Redis, Nginx, Postgres)}


def expect(got: object, wanted: object) -> None:
    if got != wanted:
        raise WrongAnswerError(f"got {got!r:.200}, expected {wanted!r:.200}")


def page(size: int) -> bytes:
    return (b"a page of %d bytes. " % size * (size // 10 + 1))[:size]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def p99(latencies: Sequence[float]) -> float:
    """Return the 99th percentile, by the nearest rank."""
    return sorted(latencies)[max(0, -(-99 * len(latencies) // 100) - 1)]
