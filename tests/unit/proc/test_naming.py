# SPDX-License-Identifier: Apache-2.0
"""Names that people use, from command lines and cgroup paths as they are found on machines."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from leakscope.proc.naming import Home, answers_to, name_of, parse_home, work_of

ID = "4e05f3c1b2a9" + "0d" * 26
UID = "0f1e2d3c-aaaa-bbbb-cccc-0123456789ab"
SLICE = f"kubepods-burstable-pod{UID.replace('-', '_')}.slice"
POD = f"/kubepods.slice/kubepods-burstable.slice/{SLICE}"


@pytest.mark.parametrize(
    ("line", "work"),
    [
        ("python3 x.py --password hunter2", "x.py"),
        ("python3 -u x.py", "x.py"),
        ("python3 -m http.server 80", "-m http.server"),
        ("/usr/bin/python3.11 -um pkg", "-m pkg"),
        ("python3 -mpkg", "-m pkg"),
        ("python3 -X dev -W ignore -Xutf8 /opt/tool.py", "tool.py"),
        ("python3 -c print()", "-c"),
        ("python3 -Bc print()", "-c"),
        ("python3", None),
        ("python3 -", None),
        ("python3 -- x.py", "x.py"),
        ("pypy3 /srv/shop/manage.py runserver", "shop/manage.py"),
        ("python3 /usr/local/bin/gunicorn shop:app", "gunicorn"),
        ("java -Xmx1g -cp a.jar:b.jar com.acme.Main x", "com.acme.Main"),
        ("java -classpath a -Dx=y com.acme.Main", "com.acme.Main"),
        ("java --add-opens java.base/java.lang=ALL-UNNAMED -jar /opt/x.jar", "x.jar"),
        ("java -javaagent:/a.jar --class-path=b Main", "Main"),
        ("java -p mods -m com.acme/com.acme.Main", "com.acme/com.acme.Main"),
        ("java @args.txt Main.java", "Main.java"),
        ("java -version", None),
        ("node --max-old-space-size=99 app2.js", "app2.js"),
        ("node --max-old-space-size 99 --flag job.js", "job.js"),
        ("node -r dotenv/config --import tsx /srv/api/index.js", "api/index.js"),
        ("node -e 1", "-e"),
        ("node --eval 1", "-e"),
        ("node --inspect=0.0.0.0:9229 job.js", "job.js"),
        ("deno run --allow-net job.ts", "job.ts"),
        ("perl -w -Ilib -I lib2 -MCarp job.pl", "job.pl"),
        ("perl -lane print", "-e"),
        ("perl -i.bak -0777 job.pl", "job.pl"),
        ("ruby -W0 -rbundler -I lib -E utf-8 job.rb", "job.rb"),
        ("ruby --enable yjit /usr/bin/puma", "puma"),
        ("php -d memory_limit=1G artisan queue:work", "artisan"),
        ("php -f job.php", "job.php"),
        ("/bin/bash -eu -o pipefail job.sh", "job.sh"),
        ("sh -c sleep", "-c"),
        ("-bash", None),
        ("dotnet exec --depsfile a.json Shop.dll", "Shop.dll"),
        ("/lib64/ld-linux-x86-64.so.2 --library-path /x ./prog", "prog"),
        ("nginx -g x", None),
    ],
)
def test_what_an_interpreter_runs(line: str, work: str | None) -> None:
    assert work_of(line.split(" ")) == work


def test_the_folder_tells_whose_main_py() -> None:
    assert work_of(["python3", "main.py"], folder="/srv/shop") == "shop/main.py"
    assert work_of(["python3", "../main.py"], folder="/srv/shop") == "srv/main.py"
    assert work_of(["python3", "bin/main.py"], folder="/srv/shop") == "main.py"


@pytest.mark.parametrize(
    ("text", "home"),
    [
        ("0::/", Home()),
        ("0::/init.scope", Home()),
        ("", Home()),
        ("nonsense\n:::\n0:", Home()),
        ("0::/system.slice/nginx.service", Home(unit="nginx.service")),
        (
            "0::/system.slice/system-getty.slice/getty@tty1.service",
            Home(unit="getty@tty1.service"),
        ),
        (r"0::/system.slice/dev-disk\x2dby.mount", Home(unit="dev-disk-by.mount")),
        ("0::/user.slice/user-1000.slice/session-3.scope", Home()),
        (
            "0::/user.slice/user-1000.slice/user@1000.service/app.slice/sync.service",
            Home(unit="sync.service"),
        ),
        (
            "12:cpuset:/\n4:memory:/system.slice/cron.service\n1:name=systemd:/system.slice/cron.service",
            Home(unit="cron.service"),
        ),
        (f"0::/system.slice/docker-{ID}.scope", Home(None, ID, "docker")),
        (f"0::/docker/{ID}", Home(None, ID, "docker")),
        (
            f"9:memory:/docker/{ID}\n1:name=systemd:/docker/{ID}\n0::/system.slice/containerd.service",
            Home(None, ID, "docker"),
        ),
        (
            f"0::/system.slice/docker-{ID}.scope/system.slice/nginx.service",
            Home("nginx.service", ID, "docker"),
        ),
        (f"0::/machine.slice/libpod-{ID}.scope/container", Home(None, ID, "podman")),
        (
            f"0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope",
            Home(None, ID, "podman"),
        ),
        (f"9:memory:/libpod_parent/libpod-{ID}", Home(None, ID, "podman")),
        (
            f"0::/machine.slice/libpod-conmon-{ID}.scope",
            Home(unit=f"libpod-conmon-{ID}.scope"),
        ),
        (f"0::{POD}/cri-containerd-{ID}.scope", Home(None, ID, "containerd", UID)),
        (f"0::{POD}/crio-{ID}.scope", Home(None, ID, "cri-o", UID)),
        (f"0::/kubelet.slice/kubelet-{SLICE}/docker-{ID}.scope", Home(None, ID, "docker", UID)),
        (f"9:memory:/kubepods/burstable/pod{UID}/{ID}", Home(None, ID, None, UID)),
        (f"9:memory:/kubepods/pod{UID}/{ID}", Home(None, ID, None, UID)),
        (
            f"0::/system.slice/containerd.service/{SLICE}:cri-containerd:{ID}",
            Home(None, ID, "containerd", UID),
        ),
        (
            f"0::/kubepods/besteffort/pod{'ab' * 16}/{ID}",
            Home(None, ID, None, "ab" * 16),
        ),
        (f"0::/default/{ID}", Home(None, ID, "containerd")),
        (f"9:memory:/ecs/{'c' * 32}/{ID}", Home(None, ID)),
        (f"9:memory:/ecs/{'c' * 32}/{'c' * 32}-123", Home(None, f"{'c' * 32}-123")),
        ("0::/lxc.payload.web1/system.slice/a.service", Home("a.service", "web1", "lxc")),
        ("9:memory:/lxc/web1", Home(None, "web1", "lxc")),
        (r"0::/machine.slice/machine-my\x2dweb.scope", Home(None, "my-web")),
        (
            "0::/machine.slice/systemd-nspawn@web.service/payload/system.slice/a.service",
            Home("a.service", "web", "nspawn"),
        ),
    ],
)
def test_where_it_lives(text: str, home: Home) -> None:
    assert parse_home(text) == home


def test_a_home_in_words() -> None:
    home = Home(None, ID, "containerd", UID)
    assert home.text == f"pod {UID}, containerd container 4e05f3c1b2a9"
    assert Home("a.service", "web1", "lxc").text == "lxc container web1, a.service"


def test_a_real_process() -> None:
    with subprocess.Popen(
        [sys.executable, "-u", "-c", "input('x')", "secret"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None
        child.stdout.read(1)
        name = name_of(child.pid)
        child.communicate(b"\n")
    assert name.short == f"{os.path.basename(sys.executable)} -c"


def test_a_process_that_overwrote_its_arguments_says_what_it_is() -> None:
    perl = shutil.which("perl")
    assert perl is not None
    code = '$0 = "shop: worker 3"; $| = 1; print "x"; <STDIN>'
    with subprocess.Popen(
        [perl, "-e", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.read(1)
        name = name_of(child.pid)
        child.communicate(b"\n")
    assert (name.program, name.short) == ("perl", "shop: worker 3")


def test_a_process_that_is_gone_has_no_name() -> None:
    assert name_of(2**22 + 1).program == ""


def test_a_process_answers_to_its_program_and_to_its_script(tmp_path) -> None:
    script = tmp_path / "manage.py"
    script.write_text("print('up', flush=True); input()")
    with subprocess.Popen(
        [sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        pid, short = process.pid, name_of(process.pid).short
        called = [
            name for name in ("manage.py", short, "manage", "other.py") if answers_to(pid, name)
        ]
        process.kill()

    assert called == ["manage.py", short]
    assert short.endswith("/manage.py")
