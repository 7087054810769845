"""Dags made by a loop: one for each region, and in each a chain of tasks for every table.

A dag file is a program. What it makes may come from a list as here, from a file beside it, from anything that is the
same each time the file is read.
"""

from fluxd import DAG, TaskGroup, task
from fluxd.ops import BashOperator, EmptyOperator

REGIONS = {"eu": "Europe/Paris", "us": "America/New_York", "jp": "Asia/Tokyo"}
TABLES = ["customers", "orders", "payments"]


@task
def total(counts: list[str], region: str) -> dict[str, int]:
    """Adds up what the tables had."""
    rows = sum(int(count) for count in counts)
    print(f"{rows} rows in {region}")
    return {"rows": rows}


for region, zone in REGIONS.items():
    with DAG(f"dynamic_{region}", schedule="30 1 * * *", timezone=zone, tags=["example"], default_args={"retries": 2}):
        start = EmptyOperator(task_id="start")
        counts = []
        for number, table in enumerate(TABLES, start=1):
            with TaskGroup(table):
                extract = BashOperator(
                    task_id="extract", bash_command=f"echo extracting {table} of {region} for {{{{ ds }}}}"
                )
                count = BashOperator(task_id="count", bash_command=f"echo {number * 10}")
                start >> extract >> count
            counts.append(count.output)
        total(counts, region)
