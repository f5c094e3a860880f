import torch
import torch.nn.functional as F

from legollm.architectures import build


def test_the_neural_bigram_becomes_the_table_of_counts() -> None:
    n = 12
    generator = torch.Generator().manual_seed(0)
    transitions = torch.rand(n, n, generator=generator) ** 3
    text = [0]
    for _ in range(3000):
        text.append(int(torch.multinomial(transitions[text[-1]], 1, generator=generator)))
    tokens = torch.tensor([text])
    counts = torch.zeros(n, n)
    counts.index_put_((tokens[0, :-1], tokens[0, 1:]), torch.ones(3000), accumulate=True)
    shares = counts / counts.sum(1, keepdim=True)
    optimum = -(counts * shares.clamp(min=1e-30).log()).sum() / counts.sum()

    model = build("bigram", vocab_size=n)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.2)
    for _ in range(150):
        loss = F.cross_entropy(model(tokens[:, :-1])[0], tokens[0, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert 0 <= loss - optimum < 0.01
    frequent = counts > 30
    learned = model.embed.weight.softmax(-1)
    torch.testing.assert_close(learned[frequent], shares[frequent], rtol=0, atol=0.02)
