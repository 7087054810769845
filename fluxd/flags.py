"""The command line of fluxd."""

import argparse
from importlib.metadata import version
from pathlib import Path

from fluxd import config


def parser() -> argparse.ArgumentParser:
    flags = argparse.ArgumentParser(
        prog="fluxd", description="The Flux daemon: schedules, runs and shows the dags of a folder."
    )
    flags.add_argument("--home", type=Path, help="Flux's folder (default: $FLUXD_HOME, else ~/.fluxd)")
    flags.add_argument("--dags", type=Path, help="folder of dag files (default: dags in the home)")
    flags.add_argument("--database", metavar="URL", help="a Postgres to use (default: one of its own in the home)")
    flags.add_argument("--listen", metavar="HOST:PORT", help="address of the web UI (default: 127.0.0.1:8090)")
    flags.add_argument("--config", type=Path, metavar="FILE", help="settings file (default: fluxd.toml in the home)")
    flags.add_argument("--version", action="version", version=f"fluxd {version('fluxd')}")
    return flags


def settings_from(arguments: list[str]) -> config.Settings:
    given = parser().parse_args(arguments)
    return config.load(
        (given.home or config.default_home()).expanduser().absolute(),
        given.config,
        flags={
            ("daemon", "dags"): given.dags and str(given.dags.expanduser().absolute()),
            ("daemon", "listen"): given.listen,
            ("database", "url"): given.database,
        },
    )
