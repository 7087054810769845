"""The store: everything that is remembered, in Postgres, and the only place where SQL is spoken.

`database` opens connections and turns failures into sentences; `schema` makes and checks the tables; `lock` sees to
it that one daemon works on a database; `turns` saves what the scheduler decided and loads it back; `dags`, `jobs` and
`pools` are one aggregate each; `embedded` is the Postgres that Flux brings along. The SQL is in `queries/*.sql`.
"""
