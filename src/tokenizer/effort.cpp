#include "effort.hpp"

#include <string>

#include "mha2mla/error.hpp"

namespace mha2mla {

void Effort::fail(std::string_view step) {
    throw Error(ErrorCode::unsupported, "the tokenizer's " + std::string(step) +
                                            " makes the text more than 16 times as long; is tokenizer.json damaged?");
}

void Effort::take_text(std::size_t bytes, std::string_view step) {
    check_size(bytes, step);
    bytes_ -= bytes;
}

}  // namespace mha2mla
