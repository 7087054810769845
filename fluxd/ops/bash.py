"""Runs a command in bash."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Unpack

from fluxd.authoring import checks
from fluxd.authoring.operator import BaseOperator
from fluxd.authoring.policy import TaskArguments
from fluxd.authoring.references import Reference, is_template
from fluxd.authoring.requests import ExecCommand
from fluxd.errors import Invalid

BASH = "/bin/bash"


class BashOperator(BaseOperator):
    """Runs `bash -c bash_command`; exit code 0 is success, `skip_on_exit_code` (99) skips, all else fails.

    Its output is the log; the last line of it is the XCom `return_value`. `env` adds to the environment, or is all of
    it with append_env=False. `cwd` is relative to the folder of the dag file. A bash_command that is the name of a
    .sh or .bash file beside the dag file (or in template_searchpath) is that file's text, rendered.
    """

    template_fields: ClassVar[Sequence[str]] = ("bash_command", "env", "cwd")
    template_ext: ClassVar[Sequence[str]] = (".sh", ".bash")
    template_file_optional: ClassVar[bool] = True

    def __init__(
        self,
        *,
        bash_command: str | Reference,
        env: Mapping[str, str] | None = None,
        append_env: bool = True,
        cwd: str | None = None,
        skip_on_exit_code: int | Sequence[int] | None = 99,
        **task_arguments: Unpack[TaskArguments],
    ) -> None:
        super().__init__(**task_arguments)
        what = f"of BashOperator {self.task_id!r}"
        given = isinstance(bash_command, Reference)
        self.bash_command = bash_command if given else checks.text(bash_command, f"bash_command {what}")
        self.env = None if env is None else checks.mapping(env, f"env {what}")
        for name in self.env or ():
            if not name or "=" in name or "\0" in name:
                raise Invalid("FLX-1003", f"env {what} has {name!r}, which cannot be the name of a variable.")
        self.append_env = checks.boolean(append_env, f"append_env {what}")
        self.cwd = cwd if cwd is None else str(cwd)
        codes = [skip_on_exit_code] if isinstance(skip_on_exit_code, int) else list(skip_on_exit_code or ())
        self.skip_on_exit_code = tuple(checks.whole(code, f"skip_on_exit_code {what}", least=1) for code in codes)

    def execute(self, context: dict[str, Any]) -> ExecCommand:
        """The command, for whoever runs us to become."""
        env = {name: str(value) for name, value in (self.env or {}).items()}
        if self.append_env:
            env = {**os.environ, **env}
        command = str(self.bash_command)
        if "\0" in command:
            raise Invalid(
                "FLX-3022", f"The command of task {self.task_id!r} has a NUL character, which no program can be given."
            )
        return ExecCommand([BASH, "-c", command], env, self._folder(), self.skip_on_exit_code)

    def spawn(self) -> dict[str, Any] | None:
        """The bare command, where there is nothing to render and no folder to go to."""
        command, env = self.bash_command, self.env or {}
        if not isinstance(command, str) or is_template(command) or self._may_be_file(command):
            return None
        if any(not isinstance(value, str) or is_template(value) for value in env.values()):
            return None
        if self.cwd is not None or not self.append_env or len(self.skip_on_exit_code) > 1:
            return None
        skip = self.skip_on_exit_code[0] if self.skip_on_exit_code else None
        return {"argv": [BASH, "-c", command], "env": dict(env), "skip_on_exit_code": skip}

    def _may_be_file(self, command: str) -> bool:
        return command.endswith(tuple(self.template_ext)) and not any(c.isspace() for c in command)

    def _folder(self) -> str | None:
        if self.cwd is None:
            return None
        folder = (self.dag.folder if self.dag else Path.cwd()) / self.cwd
        if not folder.is_dir():
            raise Invalid(
                "FLX-3023", f"The cwd {str(folder)!r} of task {self.task_id!r} is not a folder: make it first."
            )
        return str(folder)
