from pathlib import Path

import pytest

from fluxd import config
from fluxd.errors import FluxError, Invalid


def load(tmp_path: Path, text: str, environment: dict[str, str] | None = None) -> config.Settings:
    (tmp_path / "fluxd.toml").write_text(text)
    return config.load(tmp_path, environment=environment or {})


def test_defaults_then_file_then_environment_then_flags(tmp_path: Path) -> None:
    assert config.load(tmp_path, environment={}).executor.parallelism == 32
    (tmp_path / "fluxd.toml").write_text("[executor]\nparallelism = 3\nkill_grace_s = 2\n")
    assert config.load(tmp_path, environment={}).executor.parallelism == 3
    environment = {"FLUXD__EXECUTOR__PARALLELISM": "5"}
    assert config.load(tmp_path, environment=environment).executor.parallelism == 5
    settings = config.load(tmp_path, environment=environment, flags={("executor", "parallelism"): 7})
    assert settings.executor.parallelism == 7
    assert settings.executor.kill_grace_s == 2.0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "[executor]\n\nparalelism = 3\n",
            "line 3: there is no setting executor.paralelism; did you mean 'parallelism'?",
        ),
        ("[excutor]\nparallelism = 3\n", "line 1: there is no section [excutor]; did you mean 'executor'?"),
        (
            "[web]\n[executor]\nparallelism = 'many'\n",
            "line 3: the setting executor.parallelism = 'many' is not a whole",
        ),
        ("[executor]\nparallelism = 0\n", "must be greater than 0"),
        ("[executor]\nparallelism = true\n", "is not a whole number"),
        ("[daemon]\nlog_level = 'loud'\n", "is not one of debug, info, warning, error"),
        ("[daemon\n", "is not valid TOML"),
    ],
)
def test_wrong_settings_are_named_with_their_place(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(Invalid) as error:
        load(tmp_path, text)
    assert said in str(error.value)
    assert str(tmp_path / "fluxd.toml") in str(error.value)


def test_wrong_environment_is_named(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"FLUXD__EXECUTOR__NONSENSE: there is no setting executor.nonsense"):
        load(tmp_path, "", {"FLUXD__EXECUTOR__NONSENSE": "1"})


@pytest.mark.parametrize("listen", ["8090", "localhost", "127.0.0.1:web", "127.0.0.1:99999"])
def test_listen_address_must_be_host_and_port(tmp_path: Path, listen: str) -> None:
    settings = load(tmp_path, f"[daemon]\nlisten = '{listen}'\n")
    with pytest.raises(FluxError, match="FLX-6005"):
        config.listen_address(settings)


def test_a_named_file_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="FLX-6003"):
        config.load(tmp_path, tmp_path / "no.toml", environment={})
