"""Calls a Python function. The class lies in the author's side, because `@task` makes such tasks too."""

from fluxd.authoring.function import PythonOperator

__all__ = ["PythonOperator"]
