"""Decisions, and nothing else: events in, commands out, the time passed in.

Nothing here waits, reads a clock, rolls a die or touches a file. That is what lets the simulation try the scheduler
against millions of faults, and what lets a failing seed replay. Five words carry the room:

- an *event* is what the world tells (`events.py`),
- a *command* is what is asked of the world (`commands.py`),
- the *model* is what is remembered of live runs, and the table of legal moves (`model.py`),
- a *spec* is a dag as plain data (`spec.py`),
- a *timetable* says when runs are due (`timetable.py`).
"""
