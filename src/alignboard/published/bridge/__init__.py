"""Official scores predicted from another judge's."""
