"""Runs a command in bash."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Unpack

from fluxd.authoring import checks, fields
from fluxd.authoring.operator import BaseOperator
from fluxd.authoring.policy import TaskArguments
from fluxd.authoring.references import Reference, is_template
from fluxd.authoring.requests import ARGUMENT_MAX, ExecCommand
from fluxd.authoring.safely import spoken
from fluxd.errors import Invalid
from fluxd.secret_names import named_in, secrets_of, without_secrets

BASH = "/bin/bash"


class BashOperator(BaseOperator):
    """Runs `bash -c bash_command`; exit code 0 is success, `skip_on_exit_code` (99) skips, all else fails.

    Its output is the log; the last line of it is the XCom `return_value`. `env` adds to the environment, or is all of
    it with append_env=False. `cwd` is relative to the folder of the dag file. A bash_command that is the relative name
    of a .sh or .bash file beside the dag file (or in template_searchpath) is that file's text, rendered; one that is
    an absolute path is a command like any other: the script is run as it is. What came from outside (params, conf)
    must be quoted in bash_command, or better be handed over in env.

    Of the variables FLUX_CONN_<ID> and FLUX_VAR_<KEY> it gets those that stand in the command or in a value of `env`.
    """

    template_fields: ClassVar[Sequence[str]] = ("bash_command", "env", "cwd")
    template_ext: ClassVar[Sequence[str]] = (".sh", ".bash")
    strict_fields: ClassVar[Sequence[str]] = ("cwd",)
    shell_fields: ClassVar[Sequence[str]] = ("bash_command",)
    template_file_optional: ClassVar[bool] = True

    def __init__(
        self,
        *,
        bash_command: str | Reference,
        env: Mapping[str, Any] | None = None,
        append_env: bool = True,
        cwd: str | os.PathLike[str] | Reference | None = None,
        skip_on_exit_code: int | Sequence[int] | None = 99,
        **task_arguments: Unpack[TaskArguments],
    ) -> None:
        super().__init__(**task_arguments)
        what = f"of BashOperator {self.task_id!r}"
        self.bash_command = fields.written(bash_command, f"bash_command {what}")
        self.env = None if env is None else checks.mapping(env, f"env {what}")
        for name, value in (self.env or {}).items():
            if not name or "=" in name or "\0" in name:
                raise Invalid("FLX-1003", f"env {what} has {name!r}, which cannot be the name of a variable.")
            if not isinstance(value, Reference) and _variable(value) is None:
                raise Invalid("FLX-1003", f"env {what} has {name}={spoken(value)}: a variable is text or a number.")
        self.append_env = checks.boolean(append_env, f"append_env {what}")
        self.cwd = checks.optional(fields.written, fields.path(cwd), f"cwd {what}")
        codes = skip_on_exit_code if isinstance(skip_on_exit_code, list | tuple | set) else [skip_on_exit_code]
        self.skip_on_exit_code = tuple(
            checks.whole(code, f"skip_on_exit_code {what}", least=1, most=255) for code in codes if code is not None
        )

    def names_file(self, field: str, value: str) -> bool:
        """A relative name in bash_command; whoever writes an absolute path means that script, run as it is."""
        return field == "bash_command" and not value.startswith("/") and super().names_file(field, value)

    def execute(self, context: dict[str, Any]) -> ExecCommand:
        """The command, for whoever runs us to become."""
        command = fields.rendered(self.bash_command, f"The bash_command of task {self.task_id!r}")
        env = self._environment(command)
        file = self.template_files.get("bash_command")
        name = [] if file is None else [file]  # what the script finds as its $0
        text, folder = os.fsencode(command), self._folder()
        if len(text) <= ARGUMENT_MAX:
            return ExecCommand([BASH, "-c", command, *name], env, folder, self.skip_on_exit_code)
        # Too long for an argument: bash reads it from a file in memory.
        script = os.memfd_create("script")
        with open(script, "wb", closefd=False) as memory:
            memory.write(text)
        os.set_inheritable(script, True)
        argv = [BASH, "-c", f". /proc/self/fd/{script}", *name]
        return ExecCommand(argv, env, folder, self.skip_on_exit_code, (script,))

    def spawn(self) -> dict[str, Any] | None:
        """The bare command, where there is nothing to render and no folder to go to."""
        command, env = self.bash_command, self.env or {}
        if not isinstance(command, str) or is_template(command) or self.names_file("bash_command", command):
            return None
        if any(not isinstance(value, str) or is_template(value) or "\0" in value for value in env.values()):
            return None
        if self.cwd is not None or not self.append_env or len(self.skip_on_exit_code) > 1:
            return None
        if max(map(len, map(os.fsencode, (command, *env.values())))) > ARGUMENT_MAX // 2:
            return None  # more than a message and a row should carry
        skip = self.skip_on_exit_code[0] if self.skip_on_exit_code else None
        return {"argv": [BASH, "-c", command], "env": dict(env), "skip_on_exit_code": skip}

    def _environment(self, command: str) -> dict[str, str]:
        env = {}
        for name, value in (self.env or {}).items():
            text = _variable(value)
            what = f"{name} in the env of task {self.task_id!r}"
            if text is None:
                raise Invalid("FLX-3052", f"{what} must be text or a number, but when it runs it is {spoken(value)}.")
            if "\0" in text:
                raise Invalid("FLX-3022", f"{what} has a NUL character, which no program can be given: remove it.")
            env[name] = text
        if not self.append_env:
            return env
        secrets = named_in(secrets_of(os.environ), (command, *env.values()))
        return {**without_secrets(os.environ), **secrets, **env}

    def _folder(self) -> str | None:
        if self.cwd is None:
            return None
        cwd = fields.rendered(fields.path(self.cwd), f"The cwd of task {self.task_id!r}")
        folder = (self.dag.folder if self.dag else Path.cwd()) / cwd
        if not folder.is_dir():
            raise Invalid(
                "FLX-3023", f"The cwd {str(folder)!r} of task {self.task_id!r} is not a folder: make it first."
            )
        return str(folder)


def _variable(value: Any) -> str | None:
    """A value as the text of a variable: of text, a path or a number; None for what has no such text."""
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    return str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else None
