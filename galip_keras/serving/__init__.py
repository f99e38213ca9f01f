"""The HTTP service over a model. It knows no model class: what it takes has `generate`.

app.py        the routes
batching.py   requests that wait for each other, to be drawn together
drawing.py    how a batch is drawn
page.html     what a browser shows
schemas.py    what may be asked for
"""
