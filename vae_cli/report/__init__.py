"""From folders of runs to one answer: a table, sweep.csv, sweep.json, Markdown, a page, pictures.

runs.py      reads run folders            sweep.py     what varied, groups over seeds, the front
text.py      numbers and names as text    table.py     for a terminal; Markdown
data.py      CSV and JSON                 page.py      one HTML page
pictures.py  runs to figures              writing.py   all of it into a folder

Only pictures.py imports torch and matplotlib, when it is used: a table is printed at once.
"""
