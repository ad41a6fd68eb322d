"""What hiding single clients costs: masks in a compiled round, the protocol between parties, CKKS.

Seconds are of the processor, over all cores: they do not depend on what else the machine does. Of
each method they are those of one client and of the server, for one sum; compilation, training and the
network are left out.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks import records

DIMS = (100, 10_000, 1_000_000)
CLIENTS = (4, 16, 64)
METHODS = ("masks", "protocol", "ckks")
NEIGHBOURS, BOUND = 10, 1.0
DROPPED = 0.1  # of the clients, rounded up, for the second number of the server
_WORDS = {
    "masks": "masks, compiled",
    "protocol": "masks, between parties",
    "ckks": "CKKS",
}


def make_parser() -> records.Parser:
    """The command line."""
    parser = records.parser("secure_aggregation", __doc__)
    whole = records.at_least
    parser.add_argument(
        "--dims", type=whole(1), nargs="+", default=DIMS, help="default: %(default)s"
    )
    parser.add_argument(
        "--clients", type=whole(4), nargs="+", default=CLIENTS, help="default: %(default)s"
    )
    parser.add_argument("--method", choices=(*METHODS, "all"), default="all", help="default: all")
    parser.add_argument("--repeats", type=whole(1), default=5, help="default: 5")
    return parser


def cpu_seconds(fn: Callable[[], Any], repeats: int) -> float:
    """Median processor time of a call, after a first one that compiles."""
    fn()
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        fn()
        taken.append(time.process_time() - start)
    return float(np.median(taken))


def _updates(dim: int, num_clients: int) -> np.ndarray:
    rng = np.random.default_rng([dim, num_clients])
    return rng.uniform(-BOUND, BOUND, (num_clients, dim)).astype(np.float32)


def _threshold(num_clients: int) -> int:
    return min(NEIGHBOURS, num_clients - 1) // 2 + 1


def measure_masks(dim: int, num_clients: int, repeats: int) -> dict[str, Any]:
    """One client's sealing, and the opening of a sum, as they are in a compiled round."""
    import jax
    import jax.numpy as jnp

    from fedjax_med.engine.channel import Roster
    from fedjax_med.secure import secure_mean

    updates = _updates(dim, num_clients)
    ids = jnp.arange(num_clients, dtype=jnp.int32)
    roster = Roster(ids, jnp.int32(num_clients), jnp.int32(0), jnp.uint32(0))
    gone = int(np.ceil(DROPPED * num_clients))

    def steps(num_dropped: int) -> tuple[Any, Any]:
        stays = np.ones(num_clients, bool)
        # Spread over the ring, so that no client loses many neighbours.
        stays[np.linspace(0, num_clients - 1, num_dropped, dtype=int)] = False
        aggregator = secure_mean(
            num_clients,
            bound=BOUND,
            neighbours=NEIGHBOURS,
            threshold=_threshold(num_clients),
            dropout=lambda roster: jnp.asarray(stays),
        )
        channel = aggregator.channel
        assert channel is not None
        state = aggregator.init(jnp.zeros(dim))
        like = jax.eval_shape(
            lambda: aggregator.encode(jnp.zeros(dim), jnp.float32(1), state, jax.random.key(0))
        )

        @jax.jit
        def seal(update: jax.Array, place: jax.Array) -> jax.Array:
            message = aggregator.encode(update, jnp.float32(1), state, jax.random.key(0))
            return channel.seal(message, place, roster)

        @jax.jit
        def open_(total: jax.Array) -> Any:
            message, delivery = channel.open(total, like, roster)
            return aggregator.decode(message, state)[0], delivery

        return seal, open_

    def total_of(seal: Any) -> Any:
        total = jnp.zeros(dim + 2, jnp.uint32)
        for i in range(num_clients):
            total = total + seal(updates[i], jnp.int32(i))
        return total

    seal, open_ = steps(0)
    total = total_of(seal)
    mean, delivery = open_(total)
    assert not bool(delivery.rejected)
    wait = jax.block_until_ready
    result = {
        "client_cpu_s": cpu_seconds(lambda: wait(seal(updates[0], jnp.int32(0))), repeats),
        "server_cpu_s": cpu_seconds(lambda: wait(open_(total)), repeats),
        "client_bytes": int(total.nbytes),
        "max_error": float(np.abs(np.asarray(mean) - updates.astype(np.float64).mean(0)).max()),
    }
    seal, open_ = steps(gone)
    total = total_of(seal)
    if not bool(open_(total)[1].rejected):
        result["server_cpu_s_after_drop_outs"] = cpu_seconds(lambda: wait(open_(total)), repeats)
    return result


def measure_protocol(dim: int, num_clients: int, repeats: int) -> dict[str, Any]:
    """All steps of one client and of the server, key agreement and shares with them."""
    from fedjax_med.secure import fixed_point
    from fedjax_med.secure.protocol import ProtocolClient, ProtocolServer

    sizes = {"neighbours": NEIGHBOURS, "threshold": _threshold(num_clients)}
    updates = _updates(dim, num_clients)
    numbers = fixed_point(num_clients, BOUND)
    words = np.round(updates * 2.0**numbers.fraction_bits).astype(np.int32).view(np.uint32)
    client_s, server_s = [], []
    num_bytes, error = 0, 0.0
    for _ in range(repeats):
        start = time.process_time()
        server = ProtocolServer(**sizes)
        clients = [ProtocolClient(i, **sizes) for i in range(num_clients)]
        public = server.announce({i: c.advertise() for i, c in enumerate(clients)})
        sent = [c.share(public) for c in clients]
        total = None
        for i, client in enumerate(clients):
            received = {j: shares[i] for j, shares in enumerate(sent) if i in shares}
            masked = client.masked(words[i], received)
            server.receive(i, masked)
        revealed = {i: c.reveal(range(num_clients)) for i, c in enumerate(clients)}
        middle = time.process_time()
        total = server.unmask(revealed)
        server_s.append(time.process_time() - middle)
        client_s.append((middle - start) / num_clients)
        mean = total.view(np.int32) / 2.0**numbers.fraction_bits / num_clients
        error = float(np.abs(mean - updates.astype(np.float64).mean(0)).max())
        shares = sum(map(len, sent[0].values()))
        num_bytes = 64 + shares + 4 * dim + 64 * sum(map(len, revealed[0]))
    return {
        "client_cpu_s": float(np.median(client_s)),
        "server_cpu_s": float(np.median(server_s)),
        "client_bytes": num_bytes,
        "max_error": error,
    }


def measure_ckks(dim: int, num_clients: int, repeats: int) -> dict[str, Any]:
    """One client's encryption and serialisation; the server's additions; one decryption."""
    from fedjax_med.secure.homomorphic import Encrypted, new_context

    context = new_context()
    updates = _updates(dim, num_clients)
    one = Encrypted.of(updates[0], context)
    total = one
    for update in updates[1:]:
        total = total + Encrypted.of(update, context)
    mean = total.decrypt() / num_clients
    sent = one.serialize()
    return {
        "client_cpu_s": cpu_seconds(lambda: Encrypted.of(updates[0], context).serialize(), repeats),
        # Every addition is as long as any other: one is timed.
        "server_cpu_s": (num_clients - 1) * cpu_seconds(lambda: one + one, repeats),
        "decrypt_cpu_s": cpu_seconds(total.decrypt, repeats),
        "client_bytes": sum(map(len, sent)),
        "max_error": float(np.abs(mean - updates.astype(np.float64).mean(0)).max()),
    }


MEASURES = {"masks": measure_masks, "protocol": measure_protocol, "ckks": measure_ckks}


def table(results: Sequence[dict[str, Any]]) -> str:
    """The results as a table of Markdown, by numbers of an update and clients."""
    head = (
        "| numbers | clients | method | client, CPU ms | server, CPU ms | after drop-outs | "
        "client sends | largest error of the mean |",
        "| ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: |",
    )
    rows = []
    for r in results:
        after = r.get("server_cpu_s_after_drop_outs")
        cells = (
            f"{r['dim']:,}",
            str(r["num_clients"]),
            _WORDS[r["method"]],
            _ms(r["client_cpu_s"] + r.get("decrypt_cpu_s", 0)),
            _ms(r["server_cpu_s"]),
            "" if after is None else _ms(after),
            _size(r["client_bytes"]),
            f"{r['max_error']:.1e}",
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join((*head, *rows))


def _ms(seconds: float) -> str:
    ms = 1000 * seconds
    return f"{ms:.2f}" if ms < 10 else f"{ms:,.0f}"


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e3:.1f} kB" if num_bytes < 1e6 else f"{num_bytes / 1e6:.1f} MB"


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = make_parser()
    a = parser.parse_args(arguments)
    output = records.Output(a.json, parser)
    methods = METHODS if a.method == "all" else (a.method,)
    shared = {
        **records.environment(),
        "command": records.shown_command("secure_aggregation", arguments),
    }
    for dim in a.dims:
        for num_clients in a.clients:
            for method in methods:
                result = MEASURES[method](dim, num_clients, a.repeats)
                case = {"dim": dim, "num_clients": num_clients, "method": method}
                output.write({"benchmark": "secure_aggregation", **case, **result, **shared})


if __name__ == "__main__":
    main()
