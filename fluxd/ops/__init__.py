"""The operators that come with Flux, one small file each; they do not know one another."""

from fluxd.authoring.operator import BaseOperator
from fluxd.ops.bash import BashOperator
from fluxd.ops.empty import EmptyOperator
from fluxd.ops.python import PythonOperator

__all__ = ["BaseOperator", "BashOperator", "EmptyOperator", "PythonOperator"]
