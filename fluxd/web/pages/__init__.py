"""The pages for people: each one handler, a query or a few, and a template. What they change, `actions` posts."""
