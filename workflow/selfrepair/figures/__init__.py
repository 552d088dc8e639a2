"""One module per figure, `draw` and `caption` each, and what they share.

Both take the figure's tables, in the order of the catalogue, and raise InputError for one that cannot be drawn:
a column is missing, it has no row with a value, or several models where the figure is of one
(`rows.table_rows`). A table that was left empty because something was not measured is a chart that says so
(`unmeasured`).
"""
