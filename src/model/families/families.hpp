#pragma once
#include "../config_keys.hpp"
#include "mha2mla/model.hpp"

/// One function per family: fills in `config.rules`, `config.names` and what else a family decides. The table is in
/// src/model/families.cpp. `config` has its dimensions. All throw Error{format} and Error{unsupported} naming the key.
namespace mha2mla::family {

void llama(const ConfigKeys& keys, ModelConfig& config);
void mistral(const ConfigKeys& keys, ModelConfig& config);
void mixtral(const ConfigKeys& keys, ModelConfig& config);
void ministral(const ConfigKeys& keys, ModelConfig& config);
void smollm3(const ConfigKeys& keys, ModelConfig& config);
void granite(const ConfigKeys& keys, ModelConfig& config);
void phi3(const ConfigKeys& keys, ModelConfig& config);
void arcee(const ConfigKeys& keys, ModelConfig& config);
void helium(const ConfigKeys& keys, ModelConfig& config);
void seed_oss(const ConfigKeys& keys, ModelConfig& config);
void qwen2(const ConfigKeys& keys, ModelConfig& config);
void qwen3(const ConfigKeys& keys, ModelConfig& config);
void qwen2_moe(const ConfigKeys& keys, ModelConfig& config);
void qwen3_moe(const ConfigKeys& keys, ModelConfig& config);
void gemma(const ConfigKeys& keys, ModelConfig& config);
void gemma2(const ConfigKeys& keys, ModelConfig& config);
void gemma3(const ConfigKeys& keys, ModelConfig& config);
void olmo2(const ConfigKeys& keys, ModelConfig& config);
void olmo3(const ConfigKeys& keys, ModelConfig& config);
void exaone4(const ConfigKeys& keys, ModelConfig& config);
void cohere(const ConfigKeys& keys, ModelConfig& config);
void cohere2(const ConfigKeys& keys, ModelConfig& config);
void glm(const ConfigKeys& keys, ModelConfig& config);
void glm4(const ConfigKeys& keys, ModelConfig& config);
void stablelm(const ConfigKeys& keys, ModelConfig& config);
void starcoder2(const ConfigKeys& keys, ModelConfig& config);
void nemotron(const ConfigKeys& keys, ModelConfig& config);
void deepseek_v2(const ConfigKeys& keys, ModelConfig& config);
void deepseek_v3(const ConfigKeys& keys, ModelConfig& config);
void mha2mla_deepseek(const ConfigKeys& keys, ModelConfig& config);

}  // namespace mha2mla::family
