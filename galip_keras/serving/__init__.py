"""The service over a model. It knows no model class: what it takes has `generate`.

app.py        the service put together: routes, queue, keys, errors, figures
batching.py   requests that wait for each other, to be drawn together
drawing.py    how a batch is drawn
page.html     what a browser shows
routes.py     HTTP: TensorFlow Serving's REST, OpenAI's images, a browser's, health
rpc.py        gRPC: TensorFlow Serving's Predict
schemas.py    what may be asked for
service.py    what every interface does with a request
"""
