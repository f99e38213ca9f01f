"""Serves a model. Any object with the `generate` method of a model will do.

app.py        puts the service together: routes, queue, keys, errors, metrics
batching.py   collects requests so that their images are drawn together
drawing.py    draws a batch
page.html     the page for a browser
routes.py     HTTP: TensorFlow Serving's REST, OpenAI's images, plain images, health
rpc.py        gRPC: TensorFlow Serving's Predict
schemas.py    checks of requests
service.py    what all interfaces share: limits, keys, PNG files
"""
