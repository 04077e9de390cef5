"""All of toolkit's training on one page: a token table in, an adapter out, with nothing but PyTorch and PEFT.

    toolkit data build recipes/tools.toml            # prints the folder of the token table
    python docs/sft_loop.py MODEL_FOLDER TABLE_FOLDER adapter

It gets the losses that `toolkit run` gets with the same settings; tests/training/test_sft_loop.py compares them. What
toolkit adds is speed (packed micro-batches, other engines), checkpoints, a log that is read as it grows, evaluation.
"""

import math
import sys

import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, set_seed

from toolkit.data.table import TokenTable

LORA = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.05, "target_modules": "all-linear", "bias": "none"}


def train(model_folder, table_folder, out, *, epochs=3, chats_an_update=16, rate=2e-4, warmup=0.1, seed=42, lora=LORA):
    """Train a LoRA adapter and save it in `out`; returns each update's loss in nats a trained token."""
    set_seed(seed)
    base = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    base.requires_grad_(False)  # the base is frozen: it needs no gradients and no optimizer states
    model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **lora)).train()
    adapter = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(adapter, lr=rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)

    # A row is a chat as the model's template writes it: token ids, and labels that are -100 wherever nothing is
    # trained, which is everything but what the assistant says and the token that ends its turn.
    table = TokenTable(table_folder)
    total = epochs * math.ceil(table.n_chats / chats_an_update)
    rising = math.ceil(warmup * total)
    losses = []
    for epoch in range(epochs):
        order = torch.randperm(table.n_chats, generator=torch.Generator().manual_seed(seed + epoch)).tolist()
        for start in range(0, table.n_chats, chats_an_update):
            # the rate rises to its full height, then falls along half a cosine
            update = len(losses)
            done = (update - rising) / max(1, total - rising)
            factor = update / max(1, rising) if update < rising else 0.5 * (1 + math.cos(math.pi * done))
            for group in optimizer.param_groups:
                group["lr"] = rate * factor

            rows = [table.row(row) for chat in order[start : start + chats_an_update] for row in table.chat_rows(chat)]
            trained = sum(int((labels[1:] != -100).sum()) for _, labels in rows)
            loss = 0.0
            for ids, labels in rows:  # one at a time: nothing is padded, and the sum is the same however it is cut
                ids, labels = torch.from_numpy(ids)[None], torch.from_numpy(labels)
                logits = model(input_ids=ids).logits[0, :-1]  # place t predicts token t + 1
                part = F.cross_entropy(logits, labels[1:], ignore_index=-100, reduction="sum") / trained
                part.backward()
                loss += part.item()
            torch.nn.utils.clip_grad_norm_(adapter, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss)
            print(f"update {update + 1}/{total}: loss {loss:.3f}")
    model.save_pretrained(out)
    return losses


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("wanted MODEL_FOLDER TABLE_FOLDER OUT")
    train(*sys.argv[1:4])
