"""From result rows and published numbers to tables and curves: rows in, text out; `recu.stages.report` has the
files.
"""
