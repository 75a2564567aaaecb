#include "mha2mla/version.hpp"

namespace mha2mla {

std::string_view version() { return MHA2MLA_VERSION; }

}  // namespace mha2mla
