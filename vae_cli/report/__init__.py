"""From folders of runs to one answer: a table, sweep.csv, sweep.json, Markdown, a page, pictures.

reading.py   files of strangers              runs.py      run folders
sweep.py     what varied, groups, the front  text.py      numbers and names as text
table.py     for a terminal; Markdown        data.py      CSV and JSON
page.py      one HTML page                   commands.py  command lines that make it again
pictures.py  what to draw                    models.py    models side by side
writing.py   all of it into a folder

Only pictures.py and models.py import torch and matplotlib, when they are used: a table is printed
at once.
"""
