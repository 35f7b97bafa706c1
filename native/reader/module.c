/* pyrunc._reader: the reader for interpreters other than the launcher. */
#include "reader.h"

PyMODINIT_FUNC PyInit__reader(void);

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = "pyrunc._reader", .m_size = -1,
                                        .m_methods = pyrunc_reader_calls};

PyMODINIT_FUNC PyInit__reader(void)
{
    return PyModule_Create(&definition);
}
