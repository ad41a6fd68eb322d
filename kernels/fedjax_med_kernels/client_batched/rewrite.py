"""`client_batched`: traces a function, walks its jaxpr and replaces convolutions and pooling."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var, jaxpr_as_fun
from jax.extend.core import primitives as p

from fedjax_med_kernels.client_batched import rules
from fedjax_med_kernels.client_batched.jaxprs import (
    as_function,
    context_of,
    functions_of,
    open_jaxpr,
    outvars_of,
)
from fedjax_med_kernels.client_batched.operations import Choice, Record, Setting
from fedjax_med_kernels.client_batched.survey import Survey, is_entered

Args = ParamSpec("Args")
Result = TypeVar("Result")

_WITH_RULES = {p.custom_jvp_call_p: rules.custom_jvp, p.custom_vjp_call_p: rules.custom_vjp}


def client_batched(
    fn: Callable[Args, Result],
    *,
    choice: Choice | None = None,
    num_clients: int = 1,
    platform: str | None = None,
    report: Callable[[Record], None] | None = None,
) -> Callable[Args, Result]:
    """`fn` with its convolutions and pooling computed in a way that stays fast under `vmap`.

    The result has the signature of `fn` and computes the same up to the order of sums. It has to
    be applied before differentiation and before `vmap` over clients:

        jax.vmap(jax.grad(client_batched(loss)))(params, batch)

    At every call `fn` is traced to a jaxpr with the arrays among its arguments abstract and
    everything else (strings, Python numbers, NumPy arrays, whatever it closes over) as it is.
    Convolutions and pooling in it, at any depth, are evaluated by `fedjax_med_kernels.convolution`
    and `.pooling`; every other equation is evaluated as it is. So `fn` has to be pure and its
    control flow must not depend on values of arrays, as for `jax.jit`.

    - `jit`, `checkpoint`, `scan`, `while_loop` and `cond` stay what they are, names, policies and
      trip counts included. Functions that several calls share are rewritten once.
    - Names of scopes, effects, dtypes, weak types and PRNG keys are kept.
    - A function with a custom JVP or VJP keeps its rule. If the function has operations to
      replace, those inside the rule are replaced as well; if not, it is left alone with its rule.
      Operations inside rules are reported when the rule is traced. As under `jit`, a rule must
      not close over arrays that `fn` computes.
    - Operations inside other primitives that hold functions (`shard_map`, `custom_linear_solve`,
      Pallas kernels) are left as they were, and reported.
    - Where nothing is replaced, `fn` itself is called: the program is the same.

    Args:
      fn: any function of pytrees.
      choice: overrides which implementation runs, see `Choice`; None for the measured tables.
      num_clients: how many clients the result is going to be mapped over. Tables depend on it; it
        only goes into the report, since the kernels see the clients themselves.
      platform: the device it is going to be compiled for, as in `jax.Device.platform`; for the
        report. The default one if None.
      report: called with a `Record` for every operation, replaced or not, when a call is traced.

    Returns:
      A function of the same arguments.
    """

    @functools.wraps(fn)
    def batched(*args: Args.args, **kwargs: Args.kwargs) -> Result:
        call = _trace(fn, args, kwargs)
        setting = Setting(choice, num_clients, platform or jax.default_backend())
        rewrite = _Rewrite(Survey(setting), report)
        found = rewrite.survey.look(call.jaxpr.jaxpr)
        if report is not None:
            for record in found.records:
                report(record)
        if not found.any_replaced:
            return fn(*args, **kwargs)
        return call.restore(rewrite.evaluate(call.jaxpr.jaxpr, call.jaxpr.consts, call.arrays))

    return batched


class _Call(NamedTuple):
    """A call of a function: its jaxpr, the arrays it takes, and how its result is put together."""

    jaxpr: ClosedJaxpr
    arrays: list[jax.Array]
    restore: Callable[[Sequence[Any]], Any]


def _trace(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Call:
    given = _Parts.of((args, kwargs))
    returned: list[_Parts] = []

    def flat(*arrays):
        args, kwargs = given.joined(arrays)
        returned.append(_Parts.of(fn(*args, **kwargs)))
        return returned[-1].arrays

    flat.__name__ = getattr(fn, "__name__", type(fn).__name__)  # for error messages
    jaxpr = jax.make_jaxpr(flat)(*given.arrays)
    return _Call(jaxpr, given.arrays, returned[-1]._replace(arrays=[]).joined)


class _Parts(NamedTuple):
    """A pytree taken apart: its arrays, and everything else."""

    arrays: list[jax.Array]
    others: list[Any]  # None in the place of an array
    is_array: list[bool]
    structure: Any

    @classmethod
    def of(cls, tree: Any) -> _Parts:
        leaves, structure = jax.tree.flatten(tree)
        is_array = [isinstance(x, jax.Array) for x in leaves]
        arrays = [x for x, yes in zip(leaves, is_array, strict=True) if yes]
        others = [None if yes else x for x, yes in zip(leaves, is_array, strict=True)]
        return cls(arrays, others, is_array, structure)

    def joined(self, arrays: Sequence[Any]) -> Any:
        """The pytree with other arrays."""
        new = iter(arrays)
        leaves = [
            next(new) if yes else x for x, yes in zip(self.others, self.is_array, strict=True)
        ]
        return jax.tree.unflatten(self.structure, leaves)


class _Rewrite:
    """The evaluation of one call, with what was rewritten of functions that are called again."""

    def __init__(self, survey: Survey, report: Callable[[Record], None] | None):
        self.survey = survey
        self._report = report
        self._rewritten: dict[int, Any] = {}

    def evaluate(self, jaxpr: Jaxpr, consts: Sequence[Any], args: Sequence[Any]) -> list[Any]:
        """Results of a jaxpr that was surveyed, with all replacements."""
        values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *args), strict=True))
        read = lambda v: v.val if isinstance(v, Literal) else values[v]
        last = {v: i for i, eqn in enumerate(jaxpr.eqns) for v in eqn.invars if isinstance(v, Var)}
        last |= {v: len(jaxpr.eqns) for v in jaxpr.outvars if isinstance(v, Var)}
        for i, eqn in enumerate(jaxpr.eqns):
            results = self._results(eqn, jaxpr, [read(v) for v in eqn.invars])
            values |= zip(outvars_of(eqn), results, strict=True)
            for v in {v for v in eqn.invars if isinstance(v, Var) and last[v] == i}:
                del values[v]  # so that a call outside of `jit` holds no more than `fn` does
        return [read(v) for v in jaxpr.outvars]

    def _results(self, eqn: JaxprEqn, jaxpr: Jaxpr, args: list[Any]) -> Sequence[Any]:
        """What `outvars_of(eqn)` become."""
        replacement = self.survey.replacement(eqn)
        if replacement is not None:
            with context_of(eqn):
                # Constants of the function may be NumPy arrays still.
                return [replacement(*map(jnp.asarray, args))]
        if is_entered(eqn) and any(self.survey.look(f).any_replaced for f in functions_of(eqn)):
            if eqn.primitive in _WITH_RULES:
                with context_of(eqn):
                    return self._with_rule(eqn, jaxpr, args)
            eqn = eqn.replace(params={n: self._rewrite(x) for n, x in eqn.params.items()})
        return as_function(eqn, jaxpr)(*args)

    def _with_rule(self, eqn: JaxprEqn, jaxpr: Jaxpr, args: list[Any]) -> Sequence[Any]:
        # What the function closes over comes first, and has no part in its rule.
        consts, args = args[: eqn.params["num_consts"]], args[eqn.params["num_consts"] :]
        body: ClosedJaxpr = eqn.params["call_jaxpr"]
        unchanged = as_function(eqn, jaxpr)
        is_read = [v in set(outvars_of(eqn)) for v in eqn.outvars]

        def rewritten(*args):
            results = self.evaluate(body.jaxpr, body.consts, [*consts, *args])
            return [x for x, yes in zip(results, is_read, strict=True) if yes]

        rewritten.__name__ = body.jaxpr.debug_info.func_name.split(" ")[0]
        setting = self.survey.setting
        transform = functools.partial(client_batched, report=self._report, **setting._asdict())
        original = lambda *args: unchanged(*consts, *args)
        return _WITH_RULES[eqn.primitive](original, rewritten, transform)(*args)

    def _rewrite(self, param: Any) -> Any:
        """A parameter of an equation, with the functions in it rewritten."""
        if isinstance(param, tuple):
            if not any(isinstance(x, ClosedJaxpr) for x in param):
                return param
            return tuple(map(self._rewrite, param))
        if not isinstance(param, Jaxpr | ClosedJaxpr):
            return param
        if not self.survey.look(open_jaxpr(param)).any_replaced:
            return param
        # Known by identity: `jit` gives equal calls the same function.
        if id(param) not in self._rewritten:
            self._rewritten[id(param)] = self._rewritten_function(param)
        return self._rewritten[id(param)]

    def _rewritten_function(self, function: Jaxpr | ClosedJaxpr) -> Jaxpr | ClosedJaxpr:
        jaxpr = open_jaxpr(function)
        consts = function.consts if isinstance(function, ClosedJaxpr) else []
        operands = [v.aval for v in jaxpr.invars]
        new = jax.make_jaxpr(lambda *args: self.evaluate(jaxpr, consts, args))(*operands)
        if isinstance(function, Jaxpr) and new.consts:
            # Constants of a kernel have no place in an open jaxpr, but in a `jit` inside of it.
            new = jax.make_jaxpr(jax.jit(jaxpr_as_fun(new)))(*operands)
        new = new.replace(jaxpr=new.jaxpr.replace(debug_info=jaxpr.debug_info))
        return new if isinstance(function, ClosedJaxpr) else new.jaxpr
