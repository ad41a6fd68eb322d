"""An encoder and decoder of responses, over representations of patients and of drugs."""

import jax
import jax.numpy as jnp

from fedjax_med.engine.contracts import PyTree
from fedjax_med.models.adapters import Model, from_function


def response_autoencoder(*, drug_size: int = 16, hidden: int = 64, patient_size: int = 16) -> Model:
    """From the responses that are known to a patient, from the patient to all responses.

        encoder  h = relu(sum over known j of (x[j] drugs[j] V + drugs[j] M) / sqrt(1 + known) + b)
                 patient = h E + c
        decoder  outputs[j] = bias[j] + drugs[j] . (relu(patient D + d) F)

    Encoder and decoder share the representations of the drugs. A new patient is encoded like any
    other, with as few known responses as there are. Like the autoencoders of Sedhain et al., but with
    the pattern of what is known as an input, and weights by drug that are low rank.

    Inputs are rows `x` `[batch, drugs]` on one scale for all drugs (see `tasks.drug_scale`), NaN where
    not known; outputs `[batch, drugs]` on the same.

    Args:
      drug_size: length of a drug's representation.
      hidden: width of both hidden layers.
      patient_size: length of a patient's representation.

    Raises:
      ValueError: if a size is below 1.

    References:
      Sedhain et al., "AutoRec: Autoencoders Meet Collaborative Filtering", WWW 2015.
      https://doi.org/10.1145/2740908.2742726
    """
    sizes = {"drug_size": drug_size, "hidden": hidden, "patient_size": patient_size}
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size!r}.")

    def init(key: jax.Array, x: jax.Array) -> PyTree:
        keys = jax.random.split(key, 6)
        glorot = jax.nn.initializers.glorot_uniform()
        dtype = x.dtype

        def zeros(n: int) -> jax.Array:
            return jnp.zeros(n, dtype)

        drugs = jax.random.normal(keys[0], (x.shape[-1], drug_size), dtype)
        return {
            "drugs": drugs / jnp.sqrt(jnp.asarray(drug_size, dtype)),
            "encoder": {
                "value": glorot(keys[1], (drug_size, hidden), dtype),
                "known": glorot(keys[2], (drug_size, hidden), dtype),
                "hidden_bias": zeros(hidden),
                "kernel": glorot(keys[3], (hidden, patient_size), dtype),
                "bias": zeros(patient_size),
            },
            "decoder": {
                "kernel": glorot(keys[4], (patient_size, hidden), dtype),
                "hidden_bias": zeros(hidden),
                "to_drugs": glorot(keys[5], (hidden, drug_size), dtype),
                "bias": zeros(x.shape[-1]),
            },
        }

    def apply(params: PyTree, x: jax.Array) -> jax.Array:
        return decode(params, encode(params, x))

    return from_function(init, apply)


def encode(params: PyTree, x: jax.Array) -> jax.Array:
    """Representations of patients `[batch, patient_size]`, from what is known of them."""
    part, drugs = params["encoder"], params["drugs"]
    known = ~jnp.isnan(x)
    indicator = known.astype(x.dtype)
    summed = (jnp.where(known, x, 0) @ drugs) @ part["value"] + (indicator @ drugs) @ part["known"]
    number = jnp.sum(indicator, axis=1, keepdims=True)
    hidden = jax.nn.relu(summed / jnp.sqrt(1 + number) + part["hidden_bias"][None])
    return hidden @ part["kernel"] + part["bias"][None]


def decode(params: PyTree, patient: jax.Array) -> jax.Array:
    """Responses `[batch, drugs]` of patients."""
    part = params["decoder"]
    hidden = jax.nn.relu(patient @ part["kernel"] + part["hidden_bias"][None])
    return part["bias"][None] + (hidden @ part["to_drugs"]) @ params["drugs"].T
