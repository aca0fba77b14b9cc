"""Serve a tiny checkpoint with llama.cpp: `PYTHON tests/llama_server.py FOLDER PORT TOKENS`.

PYTHON needs ``pip install xllamacpp gguf``: the first is llama.cpp with its own server, built. The
checkpoint is written as GGUF into its folder, as llama.cpp's convert_hf_to_gguf.py would, which
refuses tokenizers that it does not know. With a file template.jinja there, that is the chat
template; without a preprocessor, there is no vision part.
"""

import json
import sys
import threading
from pathlib import Path
from typing import Any

import gguf  # pyright: ignore[reportMissingImports]
import numpy as np
import xllamacpp  # pyright: ignore[reportMissingImports]

ARCHITECTURE = "qwen3vl"
TEXT = {  # as in convert_hf_to_gguf.py: from transformers' names to GGUF's
    "model.language_model.": "",
    "embed_tokens": "token_embd",
    "lm_head": "output",
    "layers": "blk",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
VISION = {
    "model.visual.": "",
    "deepstack_merger_list": "v.deepstack",
    "merger.linear_fc1": "mm.0",
    "merger.linear_fc2": "mm.2",
    "merger.norm": "v.post_ln",
    "blocks": "v.blk",
    "attn.qkv": "attn_qkv",
    "attn.proj": "attn_out",
    "mlp.linear_fc1": "ffn_up",
    "mlp.linear_fc2": "ffn_down",
    "norm1": "ln1",
    "norm2": "ln2",
    "linear_fc": "fc",
    "patch_embed.proj": "v.patch_embd",
    "pos_embed": "v.position_embd",
}


def main(folder: Path, port: int, tokens: int) -> None:
    """Write the two files and serve them until this process is killed."""
    config = json.loads((folder / "config.json").read_text())
    weights = read_weights(folder / "model.safetensors")
    write_text(folder, config["text_config"], config["vision_config"], weights)
    params = xllamacpp.CommonParams()
    params.model.path = str(folder / "text.gguf")
    if (folder / "processor_config.json").exists():
        write_vision(folder, config["vision_config"], config["text_config"], weights)
        params.mmproj.path = str(folder / "vision.gguf")
    params.model_alias = {folder.name}
    params.port = port
    params.n_parallel = 4
    params.n_ctx = 4 * tokens
    params.n_threads_http = 20
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.fit_params = params.warmup = False
    template = folder / "template.jinja"
    if template.exists():
        params.chat_template = template.read_text()
    server = xllamacpp.Server(params)  # which serves while it is referred to
    threading.Event().wait()
    del server


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """Read the float32 tensors of a safetensors file."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header: dict[str, Any] = json.loads(content[8:start])
    weights = {}
    for name, entry in header.items():
        if name != "__metadata__":
            assert entry["dtype"] == "F32"
            first, last = (start + offset for offset in entry["data_offsets"])
            flat = np.frombuffer(content[first:last], dtype=np.float32)
            weights[name] = flat.reshape(entry["shape"])
    return weights


def rename(name: str, names: dict[str, str]) -> str:
    """Replace the parts of a tensor's name."""
    for old, new in names.items():
        name = name.replace(old, new)
    return name


def write_text(
    folder: Path, text: dict[str, Any], vision: dict[str, Any], weights: dict[str, np.ndarray]
) -> None:
    """Write the language model with its tokenizer and chat template."""
    writer = gguf.GGUFWriter(folder / "text.gguf", ARCHITECTURE)
    writer.add_block_count(text["num_hidden_layers"])
    writer.add_context_length(text["max_position_embeddings"])
    writer.add_embedding_length(text["hidden_size"])
    writer.add_feed_forward_length(text["intermediate_size"])
    writer.add_head_count(text["num_attention_heads"])
    writer.add_head_count_kv(text["num_key_value_heads"])
    writer.add_key_length(text["head_dim"])
    writer.add_value_length(text["head_dim"])
    writer.add_layer_norm_rms_eps(text["rms_norm_eps"])
    writer.add_rope_freq_base(text["rope_parameters"]["rope_theta"])
    writer.add_rope_dimension_sections([*text["rope_parameters"]["mrope_section"], 0])
    writer.add_num_deepstack_layers(len(vision["deepstack_visual_indexes"]))
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    special = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    vocabulary = tokenizer["model"]["vocab"] | special
    kinds = {True: gguf.TokenType.CONTROL, False: gguf.TokenType.NORMAL}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    names = sorted(vocabulary, key=vocabulary.__getitem__)
    writer.add_token_list(names)
    writer.add_token_types([kinds[name in special] for name in names])
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    writer.add_eos_token_id(special["<|im_end|>"])
    writer.add_add_bos_token(False)
    writer.add_chat_template((folder / "chat_template.jinja").read_text())
    for name, tensor in weights.items():
        if not name.startswith("model.visual."):
            new = rename(name, TEXT)
            writer.add_tensor("output_norm.weight" if new == "norm.weight" else new, tensor)
    finish(writer)


def write_vision(
    folder: Path, vision: dict[str, Any], text: dict[str, Any], weights: dict[str, np.ndarray]
) -> None:
    """Write the vision tower, which llama.cpp reads from a file of its own."""
    writer = gguf.GGUFWriter(folder / "vision.gguf", "clip")
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_projector_type("qwen3vl_merger")
    writer.add_vision_projection_dim(vision["out_hidden_size"])
    grid = round(vision["num_position_embeddings"] ** 0.5)
    writer.add_vision_image_size(grid * vision["patch_size"])
    writer.add_vision_patch_size(vision["patch_size"])
    writer.add_vision_embedding_length(vision["hidden_size"])
    writer.add_vision_feed_forward_length(vision["intermediate_size"])
    writer.add_vision_block_count(vision["depth"])
    writer.add_vision_head_count(vision["num_heads"])
    writer.add_vision_image_mean([0.5] * 3)
    writer.add_vision_image_std([0.5] * 3)
    writer.add_vision_use_gelu(True)
    writer.add_vision_spatial_merge_size(vision["spatial_merge_size"])
    writer.add_vision_attention_layernorm_eps(text["rms_norm_eps"])
    levels = vision["deepstack_visual_indexes"]
    writer.add_vision_is_deepstack_layers([i in levels for i in range(vision["depth"])])
    for name, tensor in weights.items():
        if not name.startswith("model.visual."):
            continue
        new = rename(name, VISION)
        if new.startswith("v.deepstack."):  # by its place in the list there, by its block here
            place = int(new.split(".")[2])
            new = new.replace(f".{place}.", f".{levels[place]}.", 1)
        if new == "v.patch_embd.weight":  # of the first and of the second image of a pair
            for half, end in enumerate(("", ".1")):
                writer.add_tensor(new + end, np.ascontiguousarray(tensor[:, :, half]))
        else:
            writer.add_tensor(new, tensor)
    finish(writer)


def finish(writer: Any) -> None:
    """Write everything out."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
