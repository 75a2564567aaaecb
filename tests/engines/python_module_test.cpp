// The Python module, laid out as a wheel lays it, runs the program and registers the classes of layout mha2mla with
// transformers. tools/test_packages.sh tries the wheel itself.
#include "engine.hpp"
#include "support/program.hpp"

namespace mha2mla::test {
namespace {

namespace fs = std::filesystem;

/// A directory for PYTHONPATH, with the module and what says that it is installed.
void install_module(const fs::path& to) {
    const fs::path source = MHA2MLA_SOURCE_DIR;
    fs::copy(source / "python", to, fs::copy_options::recursive);
    for (const char* name : {"configuration_mha2mla.py", "modeling_mha2mla.py"}) {
        fs::copy(source / "src/layout/transformers" / name, to / "mha2mla");
    }
    const fs::path metadata = to / "mha2mla-" MHA2MLA_VERSION ".dist-info";
    fs::create_directory(metadata);
    write_text(metadata / "METADATA", "Metadata-Version: 2.1\nName: mha2mla\nVersion: " MHA2MLA_VERSION "\n");
}

/// Of the script in tests/packages, where the module is installed and the program is on PATH.
int run_with_module(const fs::path& module, const std::string& python, const std::string& script,
                    const std::string& argument) {
    const std::string path = fs::path(MHA2MLA_PROGRAM).parent_path().string();
    return std::system(("PYTHONPATH='" + module.string() + "' PATH='" + path + "':$PATH '" + python +
                        "' '" MHA2MLA_SOURCE_DIR "/tests/packages/" + script + "' '" + argument + "'")
                           .c_str());
}

TEST(PythonModule, RunsTheProgramWithTheStandardLibraryAlone) {
    const TemporaryDirectory directory;
    install_module(directory.path());
    EXPECT_EQ(run_with_module(directory.path(), "python3", "module_test.py", MHA2MLA_EXAMPLES_DIR "/kjv-1.8M"), 0);
}

TEST(PythonModule, RegistersItsClassesWithTransformers) {
    MHA2MLA_NEEDS_ENGINES();
    const TemporaryDirectory directory;
    fs::create_directory(directory / "module");
    install_module(directory / "module");
    const ProgramResult result = run_program({"convert", MHA2MLA_EXAMPLES_DIR "/kjv-1.8M", directory / "converted",
                                              "--method", "mha2mla", "--rope", "uniform"});
    ASSERT_EQ(result.exit_code, 0) << result.err;
    EXPECT_EQ(run_with_module(directory / "module", downloaded("venv/bin/python"), "transformers_test.py",
                              directory / "converted"),
              0);
}

}  // namespace
}  // namespace mha2mla::test
