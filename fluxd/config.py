"""Settings: one table of names, types and defaults; the file, the environment and the flags are laid over it in turn.

`etc/fluxd.toml` shows every setting with its default and a sentence; a test holds it to this module. An unknown name
is an error that names the file and the line: a setting that is silently ignored is worse than none.
"""

import difflib
import math
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from fluxd.errors import Invalid

DEFAULT_HOME = "~/.fluxd"
SYSTEM_HOME = "/var/lib/fluxd"  # of the service of systemd


@dataclass(frozen=True)
class DaemonSettings:
    dags: str = "dags"
    listen: str = "127.0.0.1:8090"
    paused_at_creation: bool = False
    log_level: str = "info"
    log_format: str = "text"


@dataclass(frozen=True)
class DatabaseSettings:
    url: str = ""
    readers: int = 3


@dataclass(frozen=True)
class ExecutorSettings:
    parallelism: int = 32
    kill_grace_s: float = 10.0
    xcom_max_kb: int = 1024


@dataclass(frozen=True)
class DagfilesSettings:
    import_timeout_s: float = 30.0
    import_memory_mb: int = 1024
    settle_ms: int = 25
    loads_at_once: int = 4


@dataclass(frozen=True)
class RunnerSettings:
    start: bool = True
    hosts_max: int = 8
    host_idle_s: float = 60.0
    linger_s: float = 60.0
    answer_s: float = 10.0


@dataclass(frozen=True)
class SensingSettings:
    poke_timeout_s: float = 30.0
    pokes_at_once: int = 64


@dataclass(frozen=True)
class SupervisorSettings:
    beat_s: float = 10.0


@dataclass(frozen=True)
class WebSettings:
    session_hours: float = 12.0
    login_link_minutes: float = 15.0
    hosts: tuple[str, ...] = ()
    socket_group: str = ""
    connections_max: int = 500


@dataclass(frozen=True)
class Settings:
    """All settings, and the paths that follow from the home."""

    home: Path
    daemon: DaemonSettings = field(default_factory=DaemonSettings)
    database: DatabaseSettings = field(default_factory=DatabaseSettings)
    executor: ExecutorSettings = field(default_factory=ExecutorSettings)
    dagfiles: DagfilesSettings = field(default_factory=DagfilesSettings)
    runner: RunnerSettings = field(default_factory=RunnerSettings)
    sensing: SensingSettings = field(default_factory=SensingSettings)
    supervisor: SupervisorSettings = field(default_factory=SupervisorSettings)
    web: WebSettings = field(default_factory=WebSettings)

    @cached_property
    def dags(self) -> Path:
        # Links are kept: a deploy may switch one, and its new target is the dags folder from then on.
        return (self.home / Path(self.daemon.dags).expanduser()).absolute()

    @property
    def socket(self) -> Path:
        return self.home / "fluxd.sock"

    @property
    def logs(self) -> Path:
        return self.home / "logs"

    @property
    def listen(self) -> str:
        return self.daemon.listen

    @property
    def database_url(self) -> str | None:
        return self.database.url or None

    @property
    def xcom_max_kb(self) -> int:
        return self.executor.xcom_max_kb


SECTIONS: dict[str, type] = {
    "daemon": DaemonSettings,
    "database": DatabaseSettings,
    "executor": ExecutorSettings,
    "dagfiles": DagfilesSettings,
    "runner": RunnerSettings,
    "sensing": SensingSettings,
    "supervisor": SupervisorSettings,
    "web": WebSettings,
}
# What a number may be; whatever is not named here must be greater than zero.
AT_LEAST: dict[str, float] = {"runner.linger_s": 0, "dagfiles.settle_ms": 0}
CHOICES = {
    "daemon.log_level": ("debug", "info", "warning", "error"),
    "daemon.log_format": ("text", "json"),
}


def default_home() -> Path:
    return Path(os.environ.get("FLUXD_HOME") or DEFAULT_HOME).expanduser().absolute()


def _line_of(text: str, section: str, key: str | None) -> int:
    """The line of a section or of a key in it, 1-based; tomllib gives none."""
    inside = False
    section_line = 1
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[+\s*([^\]]+?)\s*\]", line)
        if header:
            inside = header[1] == section
            section_line = number if inside else section_line
        elif (inside and key and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=", line)) or (
            key is None and re.match(rf"\s*[\"']?{re.escape(section)}[\"']?\s*=", line)
        ):
            return number
    return section_line


def _nearest(name: str, known: list[str]) -> str:
    match = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {match[0]!r}?" if match else f"; known are {', '.join(sorted(known))}."


def _convert(section: str, key: str, value: Any, where: str) -> Any:
    """A value of a setting in its type. Text is accepted for every type, since the environment has nothing else."""
    default = getattr(SECTIONS[section](), key)
    name = f"{section}.{key}"
    try:
        if isinstance(default, bool):
            converted: Any = value if isinstance(value, bool) else {"true": True, "false": False}[str(value).lower()]
        elif isinstance(default, tuple):
            converted = tuple(value.split(",") if isinstance(value, str) else value)
        elif isinstance(default, str):
            converted = str(value)
        elif isinstance(value, bool):
            raise TypeError  # int(True) would pass
        elif isinstance(default, int) and isinstance(value, float):
            raise TypeError  # int(3.7) would pass
        else:
            converted = type(default)(value)
            if not math.isfinite(converted):
                raise ValueError
    except (KeyError, TypeError, ValueError, OverflowError):
        wanted = {bool: "true or false", int: "a whole number", float: "a number", tuple: "a list of texts"}
        raise Invalid(
            "FLX-6002", f"{where}: the setting {name} = {value!r} is not {wanted.get(type(default), 'a text')}."
        ) from None
    if name in CHOICES and converted not in CHOICES[name]:
        raise Invalid("FLX-6002", f"{where}: the setting {name} = {value!r} is not one of {', '.join(CHOICES[name])}.")
    if isinstance(converted, int | float) and not isinstance(converted, bool):
        least = AT_LEAST.get(name)
        if converted < least if least is not None else converted <= 0:
            bound = "at least 0" if least is not None else "greater than 0"
            raise Invalid("FLX-6002", f"{where}: the setting {name} = {value!r} must be {bound}.")
    return converted


def _check_name(section: str, key: str | None, where: str) -> None:
    if section not in SECTIONS:
        raise Invalid("FLX-6001", f"{where}: there is no section [{section}]{_nearest(section, list(SECTIONS))}")
    if key is not None:
        known = [f.name for f in fields(SECTIONS[section])]
        if key not in known:
            raise Invalid("FLX-6001", f"{where}: there is no setting {section}.{key}{_nearest(key, known)}")


def _from_file(path: Path) -> dict[tuple[str, str], Any]:
    try:
        text = path.read_text(encoding="utf-8")
        data = tomllib.loads(text)
    except OSError as error:
        raise Invalid(
            "FLX-6003", f"The settings file {path} cannot be read ({error.strerror}): check its path and rights."
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Invalid("FLX-6004", f"The settings file {path} is not valid TOML: {error}.") from None
    values: dict[tuple[str, str], Any] = {}
    for section, entries in data.items():
        is_table = isinstance(entries, dict)
        _check_name(section, None, f"{path}, line {_line_of(text, section, None if not is_table else '')}")
        if not is_table:
            raise Invalid("FLX-6001", f"{path}, line {_line_of(text, section, None)}: [{section}] is a section.")
        for key, value in entries.items():
            where = f"{path}, line {_line_of(text, section, key)}"
            _check_name(section, key, where)
            values[section, key] = _convert(section, key, value, where)
    return values


def _from_environment(environment: Mapping[str, str]) -> dict[tuple[str, str], Any]:
    values: dict[tuple[str, str], Any] = {}
    for name, value in environment.items():
        if not name.startswith("FLUXD__"):
            continue
        where = f"The environment variable {name}"
        section, _, key = name.removeprefix("FLUXD__").lower().partition("__")
        _check_name(section, key, where)
        values[section, key] = _convert(section, key, value, where)
    return values


def load(
    home: Path,
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[tuple[str, str], Any] | None = None,
) -> Settings:
    """The settings of a home: defaults, then its `fluxd.toml` (or `file`), then `FLUXD__SECTION__KEY`, then flags.

    `flags` maps (section, key) to a value; None values are left out. Raises Invalid FLX-600x with the place.
    """
    values: dict[tuple[str, str], Any] = {}
    path = file or home / "fluxd.toml"
    if file is not None or path.exists():
        values |= _from_file(path)
    values |= _from_environment(os.environ if environment is None else environment)
    for (section, key), value in (flags or {}).items():
        if value is not None:
            values[section, key] = _convert(section, key, value, f"The flag for {section}.{key}")
    settings = Settings(home=home)
    for section in SECTIONS:
        mine = {key: value for (name, key), value in values.items() if name == section}
        settings = replace(settings, **{section: replace(getattr(settings, section), **mine)})
    return settings


def listen_address(settings: Settings) -> tuple[str, int]:
    """(host, port) of `daemon.listen`. Raises Invalid FLX-6005."""
    host, _, port = settings.listen.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise Invalid("FLX-6005", f"daemon.listen = {settings.listen!r} is not HOST:PORT, for example 127.0.0.1:8090.")
    return host.strip("[]"), int(port)
