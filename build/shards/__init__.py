"""Turns a checkpoint into the files that a swarm serves.

    python -m build.shards CHECKPOINT OUT_DIR

One weights file per layer, graph templates that load any span of layers as one session, the
embedding, the head, the tokenizer and a manifest that pins all of it by sha256:

    source.py       what a model is read from, whatever its files
    huggingface.py  a folder of safetensors, config.json and tokenizer.json
    gguf.py         a GGUF file, its tokenizer and chat template included
    quantise.py     blocks of 32 weights in 4 or 8 bits, and back
    rope.py         rotary position tables
    layout.py       which bytes lie where in a weights file; how it is expanded to fp32
    weights.py      what each file holds, made a few rows at a time
    blobs.py        files hashed on their way to the disk
    ledger.py       what a build that was cut off has made already
    protos.py       ONNX's protocol buffers, made short
    lookup.py       the embedding's part of a graph
    graphs.py       ONNX graphs over those files
    reference.py    greedy ids of the unsplit model, by which a node tests itself
    builder.py      puts it together; same checkpoint, same bytes
"""
