"""The smallest pipeline: two tasks, one handing its result to the other."""

from fluxd import DAG, task
from fluxd.ops import BashOperator

with DAG("hello", schedule="@daily", doc_md=__doc__):
    greet = BashOperator(task_id="greet", bash_command="echo 'Hello, it is {{ ds }}.'")

    @task
    def shout(greeting):
        print(greeting.upper())

    shout(greet.output)
