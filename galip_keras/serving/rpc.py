"""TensorFlow Serving's gRPC: Predict, for clients of `tensorflow-serving-api`."""

import contextlib
from collections.abc import AsyncIterator

import grpc
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2

from galip_keras.serving import schemas
from galip_keras.serving.batching import Job
from galip_keras.serving.service import (
    Refusal,
    Service,
    check_key,
    log_failure,
    refusing,
)

_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    503: grpc.StatusCode.UNAVAILABLE,
}
_SIGNATURE = "serving_default"
_DTYPES = {"prompt": tf.string, "seed": tf.int64}


@contextlib.asynccontextmanager
async def serving(
    service: Service, address: str, api_key: str | None = None
) -> AsyncIterator[None]:
    """Serve while the context lasts, and answer pending requests before it ends.

    Args:
        service: `Service`.
        address: string, as `"127.0.0.1:8500"`.
        api_key: string. What `authorization` among the metadata has to carry, as
            `Bearer KEY`; None for no key.

    Raises:
        RuntimeError: if it cannot listen on `address`.
    """
    options = [
        ("grpc.max_receive_message_length", service.max_body),
        # Two services at one address would share its clients.
        ("grpc.so_reuseport", 0),
    ]
    server = grpc.aio.server(options=options)
    handler = grpc.unary_unary_rpc_method_handler(
        _predict(service, api_key),
        request_deserializer=predict_pb2.PredictRequest.FromString,
        response_serializer=predict_pb2.PredictResponse.SerializeToString,
    )
    # Of the other methods gRPC itself says that they are not there.
    server.add_generic_rpc_handlers(
        [
            grpc.method_handlers_generic_handler(
                "tensorflow.serving.PredictionService", {"Predict": handler}
            )
        ]
    )
    server.add_insecure_port(address)
    await server.start()
    try:
        yield
    finally:
        await server.stop(service.timeout)


def _predict(service, api_key):
    async def predict(request, context):
        try:
            if api_key:
                metadata = dict(context.invocation_metadata())
                check_key(api_key, metadata.get("authorization", ""))
            files = await service.draw(_jobs(request, service))
        except Refusal as error:
            code, reason = _CODES[error.status], str(error)
        except Exception as error:
            code, reason = grpc.StatusCode.INTERNAL, log_failure(error)
        else:
            return _response(service, files)
        return await context.abort(code, reason)

    return predict


def _jobs(request, service):
    """The images that a request asks for."""
    spec = request.model_spec
    if spec.name != service.name:
        raise Refusal(404, f"the model's name is {service.name}")
    if spec.HasField("version") and str(spec.version.value) != service.version:
        raise Refusal(404, f"its version is {service.version}")
    if spec.signature_name not in ("", _SIGNATURE):
        raise Refusal(400, f"its signature is {_SIGNATURE}")
    if request.inputs.keys() != _DTYPES.keys():
        raise Refusal(400, "its inputs are `prompt` and `seed`")
    values = {name: _values(name, tensor) for name, tensor in request.inputs.items()}
    with refusing():
        columns = schemas.Columns.model_validate(values)
    return [Job(*x) for x in columns.rows()]


def _values(name, tensor):
    """A list of a tensor's values."""
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    # Check the shape first: NumPy would repeat a single value to fill a huge one.
    if len(shape) != 1 or not 1 <= shape[0] <= schemas.MOST_IMAGES:
        raise Refusal(400, f"{name}: not of shape (1,) to ({schemas.MOST_IMAGES},)")
    dtype = _DTYPES[name]
    if tensor.dtype != dtype.as_datatype_enum:
        raise Refusal(400, f"{name}: not of {dtype.name}")
    try:
        values = tf.make_ndarray(tensor).tolist()
        return [x.decode() if isinstance(x, bytes) else x for x in values]
    except (TypeError, ValueError) as error:
        raise Refusal(400, f"{name}: broken") from error


def _response(service, files):
    response = predict_pb2.PredictResponse()
    response.model_spec.name = service.name
    response.model_spec.version.value = int(service.version)
    response.model_spec.signature_name = _SIGNATURE
    images = tf.make_tensor_proto(files, dtype=tf.string, shape=[len(files)])
    response.outputs["image_bytes"].CopyFrom(images)
    return response
