"""Turns a Llama checkpoint into the files that a swarm serves.

    python -m build.shards CHECKPOINT_DIR OUT_DIR

One weights file per layer, graph templates that load any span of layers as one session, the
embedding, the head, the tokenizer and a manifest that pins all of it by sha256:

    source.py       what a model is read from, whatever its files
    huggingface.py  a folder of safetensors, config.json and tokenizer.json
    gguf.py         a GGUF file, its tokenizer and chat template included
    quantise.py     int4 blocks of 32 weights, and back
    rope.py         rotary position tables
    layout.py       which bytes lie where in a weights file; how int4 is expanded to fp32
    graphs.py       ONNX graphs over those files
    reference.py    greedy ids of the unsplit int4 model, by which a node tests itself
    builder.py      puts it together; same checkpoint, same bytes
"""
