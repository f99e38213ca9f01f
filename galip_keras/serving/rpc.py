"""TensorFlow Serving's gRPC: Predict, for clients of `tensorflow-serving-api`."""

import contextlib
from collections.abc import AsyncIterator

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2

from galip_keras.serving import schemas
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
            signature = _signature(request.model_spec, service)
            asked = _asked(request.inputs, signature)
            results = await service.predict(signature, asked)
        except Refusal as error:
            code, reason = _CODES[error.status], str(error)
        except Exception as error:
            code, reason = grpc.StatusCode.INTERNAL, log_failure(error)
        else:
            return _response(service, signature, results)
        return await context.abort(code, reason)

    return predict


def _signature(spec, service):
    """The signature that a request calls."""
    if spec.name != service.name:
        raise Refusal(404, f"the model's name is {service.name}")
    if spec.HasField("version") and str(spec.version.value) != service.version:
        raise Refusal(404, f"its version is {service.version}")
    return service.signature(spec.signature_name)


def _asked(inputs, signature):
    """What a request gives, checked."""
    if inputs.keys() != signature.inputs.keys():
        names = " and ".join(f"`{name}`" for name in signature.inputs)
        raise Refusal(400, f"the signature takes {names}")
    columns = {
        name: _values(name, inputs[name], expected)
        for name, expected in signature.inputs.items()
    }
    with refusing():
        return signature.schema.model_validate(
            {"signature_name": signature.name, "inputs": columns}
        )


def _values(name, tensor, expected):
    """A list of a tensor's values, one for each row."""
    rows, *shape = [dim.size for dim in tensor.tensor_shape.dim] or [0]
    # Check the shape first: NumPy would repeat a single value to fill a huge one.
    if not 1 <= rows <= schemas.MOST_IMAGES or tuple(shape) != expected.shape:
        sizes = ", ".join(["rows", *map(str, expected.shape)])
        raise Refusal(
            400, f"{name}: not of shape ({sizes}), with 1 to {schemas.MOST_IMAGES} rows"
        )
    dtype = tf.as_dtype(expected.dtype)
    if tensor.dtype != dtype.as_datatype_enum:
        raise Refusal(400, f"{name}: not of {dtype.name}")
    try:
        values = tf.make_ndarray(tensor).tolist()
        return [x.decode() if isinstance(x, bytes) else x for x in values]
    except (TypeError, ValueError) as error:
        raise Refusal(400, f"{name}: broken") from error


def _response(service, signature, results):
    response = predict_pb2.PredictResponse()
    response.model_spec.name = service.name
    response.model_spec.version.value = int(service.version)
    response.model_spec.signature_name = signature.name
    if isinstance(results[0], bytes):
        tensor = tf.make_tensor_proto(results, tf.string, [len(results)])
    else:
        tensor = tf.make_tensor_proto(np.stack(results), signature.result.dtype)
    response.outputs[signature.output].CopyFrom(tensor)
    return response
