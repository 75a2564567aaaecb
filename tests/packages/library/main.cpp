// A program of someone who has installed the library: the layers of a checkpoint, and the library's version.
#include <cstdio>

#include "mha2mla/model.hpp"
#include "mha2mla/version.hpp"

int main(int count, char** arguments) {
    if (count != 2) return 2;
    const mha2mla::Model model = mha2mla::Model::open(arguments[1]);
    std::printf("%d layers, read by version %s\n", static_cast<int>(model.config.num_hidden_layers),
                std::string(mha2mla::version()).c_str());
}
