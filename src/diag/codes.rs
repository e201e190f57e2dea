//! The catalogue of diagnostic codes. A code has a page in `codes/`, shown by `peftc explain`; a
//! code without its page does not compile.
//!
//! Ranges follow the phases: E00 files, E01 syntax, E02 names, E03 types and shapes, E04 targets,
//! E05 graph, E06 ONNX, E07 gradients, E08 running, E09 weights and interop, E10 data, E11 training, E99 a bug in peftc;
//! W warnings with the same ranges.

/// How grave a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    Error,
    Warning,
}

macro_rules! codes {
    ($($code:ident: $title:literal,)*) => {
        /// A catalogue entry; its name never changes meaning once released.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code { $(#[doc = $title] $code,)* }

        impl Code {
            /// Every code, in the order of the catalogue.
            pub const ALL: &'static [Code] = &[$(Code::$code,)*];

            /// The code as written, such as `E0401`.
            pub fn name(self) -> &'static str {
                match self { $(Code::$code => stringify!($code),)* }
            }

            /// One line that names the fault.
            pub fn title(self) -> &'static str {
                match self { $(Code::$code => $title,)* }
            }

            /// The page shown by `peftc explain`, in Markdown.
            pub fn page(self) -> &'static str {
                match self {
                    $(Code::$code => include_str!(concat!("codes/", stringify!($code), ".md")),)*
                }
            }
        }
    };
}

codes! {
    // E00 files
    E0001: "file cannot be read",
    E0002: "file cannot be written",
    E0003: "file is too large",
    E0010: "command line not understood",
    // E01 syntax
    E0101: "unexpected text",
    E0102: "unknown keyword",
    E0103: "bracket without its partner",
    E0104: "string is not closed",
    E0105: "character outside the language",
    E0106: "reserved word used as a name",
    E0107: "nested too deeply",
    E0108: "file too large",
    E0109: "not a number",
    E0110: "unknown escape",
    E0111: "two statements on one line",
    E0112: "documentation of nothing",
    E0113: "comparisons in a row",
    E0114: "value without a use",
    E0115: "argument without a name after one with a name",
    E0116: "clause written twice",
    E0117: "file is not formatted",
    // E02 names
    E0201: "name is not defined",
    E0202: "name is declared twice",
    E0203: "unknown hyper-parameter",
    E0204: "hyper-parameter is missing",
    E0205: "unknown library",
    E0206: "not in the library",
    E0207: "import closes a circle",
    E0208: "unknown layer kind",
    E0209: "method without forward",
    E0210: "call without end",
    E0211: "unknown role",
    // E03 types and shapes
    E0301: "value of another type",
    E0302: "shapes do not fit",
    E0303: "forward has another shape than the output",
    E0304: "not a size",
    E0305: "requirement does not hold",
    E0306: "wrong arguments",
    E0307: "not known when compiling",
    E0308: "formula too large",
    E0309: "not one of the choices",
    E0310: "not available here",
    E0311: "hook on what is not trained",
    E0312: "state that stays zero",
    E0313: "interchange does not fit the method",
    E0350: "proof fails",
    W0301: "parameter does not reach the result",
    // E04 targets
    E0401: "pattern matches nothing",
    E0402: "branch of a pattern matches nothing",
    E0403: "exclusion excludes nothing",
    E0404: "method does not adapt this kind of layer",
    E0405: "module adapted by two statements",
    E0406: "override applies to nothing",
    E0407: "pattern cannot be read",
    E0408: "module cannot be adapted",
    E0409: "expectation fails",
    E0451: "condition leaves nothing",
    E0452: "no such adapter",
    E0454: "model has no attention mask",
    E0455: "slice does not fit",
    E0456: "setting sets nothing",
    E0457: "base weight cannot be used",
    E0458: "adapter does nothing",
    E0459: "start value needs a calibration",
    E0460: "model has no ids of tokens",
    E0461: "no first pass to this module",
    E0462: "module reads no attention",
    E0463: "other module cannot be applied",
    W0401: "method reads padding",
    W0402: "method reads other tokens under a KV cache",
    W0403: "weight is shared",
    W0404: "values contradict a name",
    W0405: "values are those of several modules",
    W0406: "layers without a name and a role",
    E0410: "name map is not valid",
    E0411: "name map names no layer",
    E0412: "slice lies outside the layer",
    E0413: "layers without a module path",
    E0414: "adapter is too large for a model file",
    E0415: "no such list of layers",
    E0416: "no such layers",
    E0417: "layers cannot be repeated",
    // E05 graph
    E0502: "value is defined more than once",
    E0503: "value is not defined",
    E0504: "nodes form a cycle",
    W0501: "nodes are not in topological order",
    E0511: "element types contradict",
    E0514: "model has no such flag",
    E0515: "branch cannot be inlined",
    W0512: "shapes contradict",
    W0513: "operands do not fit",
    // E06 ONNX
    E0601: "not an ONNX model",
    E0602: "ONNX file is damaged",
    E0603: "IR version is not supported",
    E0604: "opset is not supported",
    E0605: "tensor is not valid",
    E0606: "node or value of the model is not valid",
    E0607: "model is nested too deep or too large",
    E0608: "external data is in a forbidden place",
    E0609: "external data is missing",
    E0610: "external data does not fit its tensor",
    E0614: "external data has another checksum",
    E0615: "model is too large for one file",
    E0616: "sparse initializer cannot be made dense",
    E0620: "local functions call each other",
    E0621: "local function has another opset",
    W0602: "initializers are inputs, too",
    W0603: "external data has unknown keys",
    W0604: "checksum of external data is not verified",
    W0605: "graph input is listed twice",
    W0606: "initializers are sparse",
    W0607: "fields are not known",
    W0608: "fields that are not known are lost",
    W0609: "nodes have the same name",
    // E07 gradients
    E0701: "no gradient on the way",
    E0702: "gradient cannot be derived",
    E0703: "parameter does not reach the loss",
    E0704: "loss is not one float",
    E0705: "parameter is not a float tensor",
    E0706: "opset is too old for gradients",
    E0751: "nothing to train",
    E0752: "output does not fit the task",
    E0753: "loss or update cannot be computed",
    E0754: "no weight to round",
    E0755: "head does not fit the model",
    E0756: "learning rate of no parameter",
    E0757: "step does not fit into memory",
    W0701: "logits are not computed in pieces",
    // E08 running
    E0801: "ONNX Runtime not found",
    E0802: "ONNX Runtime cannot be loaded",
    E0803: "ONNX Runtime cannot be installed",
    E0804: "ONNX Runtime refuses the model",
    E0805: "inputs do not fit the model",
    E0806: "running the model failed",
    E0807: "execution provider not usable",
    E0808: "value cannot be handled",
    E0809: "outputs differ from what is expected",
    E0810: "memory does not suffice",
    // E09 weights and interop
    E0901: "weights file is not valid",
    E0902: "tensor is not the adapter's",
    E0903: "tensor is missing",
    E0904: "tensor does not fit",
    E0905: "method does not merge",
    E0906: "weight cannot take merged values",
    E0907: "calibration does not fit",
    E0908: "change is not the product of two matrices",
    E0909: "adapter of another tool cannot be read",
    E0910: "adapter cannot be said in another tool",
    // E10 data
    E1001: "row cannot be read",
    E1002: "column is missing",
    E1003: "value of another kind",
    E1004: "not a class",
    E1005: "data set is empty",
    E1006: "nothing to learn from a row",
    E1007: "example is too long",
    E1008: "token is not the model's",
    E1009: "format of a data file cannot be used",
    E1010: "tokenizer cannot be used",
    E1011: "template cannot be used",
    E1012: "answers cannot be found",
    E1014: "not a token",
    E1015: "rows are broken",
    E1016: "examples cannot share a row",
    E1017: "data file is damaged",
    W1001: "rows are left out",
    W1002: "examples are cut",
    W1003: "prompt ends inside a token",
    W1004: "nothing ends a text",
    // E11 training
    E1101: "configuration of a run",
    E1102: "data does not give an input",
    E1103: "step is not finite",
    E1104: "checkpoint of another run",
    E1105: "data does not fit the task",
    E1106: "nothing to measure",
    E1107: "calibration cannot be made",
    E1108: "base without kernels on a GPU",
    W1101: "held-out loss is not finite",
    W1102: "memory may not suffice",
    // E99 bug
    E9901: "bug in peftc",
}

impl Code {
    /// Errors start with `E`, warnings with `W`.
    pub fn severity(self) -> Severity {
        if self.name().starts_with('W') {
            Severity::Warning
        } else {
            Severity::Error
        }
    }

    /// Looks a code up by its name, in any case.
    pub fn parse(name: &str) -> Option<Code> {
        Code::ALL
            .iter()
            .copied()
            .find(|code| code.name().eq_ignore_ascii_case(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_page_under_its_title() {
        for code in Code::ALL {
            let page = code.page();
            let title = format!("# {}: {}", code.name(), code.title());
            assert!(page.starts_with(&title), "{}: {page}", code.name());
            let words = page.split_whitespace().count();
            assert!(words >= 25, "{} says too little: {page}", code.name());
        }
    }
}
