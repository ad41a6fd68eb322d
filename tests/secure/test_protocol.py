"""The protocol between parties: the same integers as the compiled path, and no more revealed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedjax_med.secure import keys, masking, primitives, shamir
from fedjax_med.secure.protocol import ProtocolClient, ProtocolError, ProtocolServer, run_protocol
from fedjax_med.secure.ring import neighbours_of, signs_on_ring
from fedjax_med_kernels.masks import keystream
from tests.draws import draws
from tests.secure.protocol_cases import play_round, roster_of
from tests.secure.test_masking import looks_uniform

SIZES = {"neighbours": 4, "threshold": 3}


def messages_of(ids, num_words=21, seed=0):
    rng = np.random.default_rng(seed)
    return {i: rng.integers(0, 2**32, num_words, dtype=np.uint32) for i in ids}


@draws(quick=15, thorough=100)
@given(data=st.data())
def test_the_sum_is_that_of_the_integers(data):
    ids = data.draw(st.lists(st.integers(0, 10**6), min_size=4, max_size=8, unique=True))
    dropped = data.draw(st.sampled_from([(), (ids[0],), tuple(ids[:2]), tuple(ids[:3])]))
    messages = messages_of(ids)
    alive = [i for i in ids if i not in dropped]
    possible = all(
        sum(j in alive for j in signs_on_ring(i, ids, SIZES["neighbours"])) >= SIZES["threshold"]
        for i in ids
    )
    if not possible or len(alive) < SIZES["threshold"]:
        with pytest.raises(ProtocolError, match="threshold"):
            run_protocol(messages, dropped=dropped, **SIZES)
        return
    got = run_protocol(messages, dropped=dropped, **SIZES)
    want = sum((messages[i] for i in alive), start=np.zeros(21, np.uint32))
    np.testing.assert_array_equal(got.words, want)
    assert set(got.masked) == set(alive)


def test_the_compiled_round_and_the_protocol_give_the_same_integers():
    ids = [3, 4, 11, 20, 21, 50]
    messages = messages_of(ids)
    alive = np.array([True, True, False, True, True, True])
    stacked = np.stack([messages[i] for i in ids])
    play = jax.jit(lambda m, r, a: play_round(m, r, a, **SIZES))
    _, compiled, _ = play(stacked, roster_of(ids, capacity=6), alive)
    host = run_protocol(messages, dropped=[11], **SIZES)
    np.testing.assert_array_equal(host.words, compiled)
    small = {i: m & 0xFFFF for i, m in messages.items()}
    host = run_protocol(small, bits=18, **SIZES)
    np.testing.assert_array_equal(host.words, sum(small.values()) & np.uint32(2**18 - 1))


def test_with_the_same_keys_masked_messages_are_the_same():
    ids = [3, 4, 11, 20, 21, 50]
    roster = roster_of(ids, capacity=6)
    m = masking.Masking(6, 4, 3, 2, 0.0, masking.Words(32, None))
    message = messages_of([0])[0]

    @jax.jit
    def compiled(place):
        own = keys.client_keys(roster.members, roster)
        here = jnp.full(6, place)
        pairs = keys.pair_keys(
            roster.members[here], own.secret[here], roster.members, own.secret, roster
        )
        nonce = keys.stream_nonce(roster)
        return (
            masking.masked_words(m, jnp.asarray(message), place, roster),
            own.self_seed[place],
            pairs.key,
            nonce,
        )

    want, seed, pair_keys, nonce = map(np.asarray, compiled(jnp.int32(2)))
    signs = signs_on_ring(11, ids, 4)
    by_id = {i: pair_keys[ids.index(i)].tobytes() for i in signs}
    got = primitives.mask(seed.tobytes(), by_id, signs, len(message), nonce.tobytes())
    np.testing.assert_array_equal(message + got, want)


def test_streams_and_graphs_agree_with_the_compiled_ones():
    key = np.random.default_rng(0).integers(0, 2**32, 8, dtype=np.uint32)
    nonce = np.array([1, 2, 3], np.uint32)
    want = jax.jit(lambda k, n: keystream(k, n, 40))(key, nonce)
    np.testing.assert_array_equal(primitives.stream(key.tobytes(), 40, nonce.tobytes()), want)
    places = jnp.arange(8, dtype=jnp.int32)
    graphs = {
        k: jax.jit(lambda p, c, k=k: jax.vmap(lambda x: neighbours_of(x, c, k))(p))
        for k in (2, 4, 8)
    }
    for count in range(1, 9):
        for k, graph in graphs.items():
            got = graph(places, jnp.int32(count))
            for place in range(count):
                pairs = zip(np.asarray(got.place[place]), np.asarray(got.sign[place]), strict=True)
                want = signs_on_ring(place, range(count), k)
                assert {int(p): int(s) for p, s in pairs if s} == want
                # Everybody is a neighbour of its neighbours, who see the opposite sign.
                for partner, sign in want.items():
                    assert signs_on_ring(partner, range(count), k)[place] == -sign


def test_a_masked_message_looks_uniform_even_of_zeros():
    messages = {i: np.zeros(2**14, np.uint32) for i in range(5)}
    got = run_protocol(messages, **SIZES)
    # The keys come from the system's generator: a threshold that an honest run meets always but
    # once in a million.
    assert all(looks_uniform(y) > 1e-7 for y in got.masked.values())
    assert not got.words.any()


def started(num=5):
    clients = {i: ProtocolClient(i, **SIZES) for i in range(num)}
    server = ProtocolServer(**SIZES)
    public = server.announce({i: c.advertise() for i, c in clients.items()})
    return clients, server, {i: c.share(public) for i, c in clients.items()}


def received(sent, i):
    return {j: shares[i] for j, shares in sent.items() if i in shares}


def test_shares_are_readable_by_their_receiver_alone_and_unchanged():
    clients, _, sent = started()
    words = np.zeros(3, np.uint32)
    good = received(sent, 0)
    partner = next(iter(good))
    changed = {**good, partner: good[partner][:-1] + bytes([good[partner][-1] ^ 1])}
    with pytest.raises(ProtocolError, match="were changed"):
        clients[0].masked(words, changed)
    others = {**good, partner: received(sent, 1)[2]}
    with pytest.raises(ProtocolError, match="were changed"):
        clients[0].masked(words, others)
    del good[partner]
    with pytest.raises(ProtocolError, match=rf"no shares of neighbours \[{partner}\]"):
        clients[0].masked(words, good)


def test_a_client_never_reveals_both_secrets_of_a_neighbour():
    clients, _, sent = started()
    for i, client in clients.items():
        client.masked(np.zeros(3, np.uint32), received(sent, i))
    told = clients[0].reveal([0, 1, 2, 3])
    assert set(told.self_seeds) | set(told.secrets) == {1, 2, 3, 4}
    assert not set(told.self_seeds) & set(told.secrets)
    with pytest.raises(ProtocolError, match="once in a round"):
        clients[0].reveal([0, 1, 2, 4])
    with pytest.raises(ProtocolError, match="2 clients handed in, fewer than 3"):
        clients[1].reveal([0, 1])


def test_the_server_needs_the_threshold_and_one_share_less_gives_another_key():
    clients, server, sent = started()
    messages = messages_of(range(5))
    for i in range(4):
        server.receive(i, clients[i].masked(messages[i], received(sent, i)))
    revealed = {i: clients[i].reveal(range(4)) for i in range(4)}
    few = {i: revealed[i] for i in (0, 1)}
    with pytest.raises(ProtocolError, match="the round is rejected"):
        server.unmask(few)
    np.testing.assert_array_equal(
        server.unmask(revealed), sum(list(messages.values())[:4], start=np.zeros(21, np.uint32))
    )
    shares = np.stack([revealed[i].secrets[4] for i in range(4)])
    points = np.arange(1, 5, dtype=np.uint32)
    secret = clients[4]._secret.private_bytes_raw()
    assert bytes(shamir.recover(points[1:4], shares[1:4]).astype(np.uint8)) == secret
    assert bytes((shamir.recover(points[:2], shares[:2]) % 256).astype(np.uint8)) != secret


def test_too_few_clients():
    with pytest.raises(ProtocolError, match="Client 0 has 2 neighbours, fewer than the 3"):
        run_protocol(messages_of(range(3)), **SIZES)
    with pytest.raises(ValueError, match="at least 2 clients, got 1"):
        run_protocol(messages_of([0]), **SIZES)
    with pytest.raises(ProtocolError, match="Nobody handed in"):
        ProtocolServer(**SIZES).unmask({})
