"""One module per figure, `draw` and `caption` each, and what they share.

Both take the figure's tables, in the order of the catalogue, and raise InputError for one that cannot be drawn:
a column is missing, it has no row with a value, or several models where the figure is of one
(`rows.table_rows`). For a table that was left empty because something was not measured they raise NotMeasured;
`drawing` then puts the reason in place of panels.
"""
